package agent

import (
	"bufio"
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/health"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// onlineFile lists the machine's processors that are switched on, whichever of
// them this process may run on.
const onlineFile = "sys/devices/system/cpu/online"

// capacity is what the machine has, as its root shows: processors in thousandths,
// memory in bytes.
func capacity(root fs.FS) (spec.CPU, spec.Bytes, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	memory, found := memTotal(text)
	if !found {
		return 0, 0, fault.New(fault.Internal, "read /proc/meminfo", "it has no MemTotal")
	}
	list, err := fs.ReadFile(root, onlineFile)
	if err != nil {
		return 0, 0, err
	}
	cpus, ok := countCPUs(string(list))
	if !ok {
		return 0, 0, fault.New(fault.Internal, "read /"+onlineFile, "%.100q is no list of processors", list)
	}
	return spec.CPU(cpus) * 1000, memory, nil
}

// countCPUs counts a list in the kernel's form: "0-3,8-11".
func countCPUs(list string) (int, bool) {
	count := 0
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		first, err := strconv.ParseUint(low, 10, 16)
		last, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil || last < first {
			return 0, false
		}
		count += int(last-first) + 1
	}
	return count, true
}

// raiseLimits brings kernel limits to what a full host needs. An agent that may
// not says so and goes on: it does for fewer instances, and doctor names the
// command.
func raiseLimits(log *slog.Logger) {
	for _, l := range health.Limits() {
		before, err := l.Raise("/proc")
		switch {
		case err != nil:
			log.Warn("a kernel limit is low", "limit", l.Name, "why", l.Why, "error", err)
		case before < l.Floor:
			log.Info("raised a kernel limit", "limit", l.Name, "from", before, "to", l.Floor, "why", l.Why)
		}
	}
}

// memTotal finds "MemTotal:       24683620 kB".
func memTotal(meminfo []byte) (spec.Bytes, bool) {
	for line := range strings.Lines(string(meminfo)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "MemTotal:" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		return spec.Bytes(kib << 10), err == nil
	}
	return 0, false
}

// charMajor finds a driver's major among the character devices of /proc/devices;
// 0 where it is not loaded.
func charMajor(driver string) uint32 {
	text, err := os.ReadFile("/proc/devices")
	if err != nil {
		return 0
	}
	return majorIn(text, driver)
}

func majorIn(devices []byte, driver string) uint32 {
	lines := bufio.NewScanner(bytes.NewReader(devices))
	for lines.Scan() {
		number, name, found := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if lines.Text() == "Block devices:" {
			return 0
		}
		if major, err := strconv.ParseUint(number, 10, 32); found && err == nil && name == driver {
			return uint32(major)
		}
	}
	return 0
}

// smallInstance is the operator's choice for instances that name no resources and
// hold no GPU.
func smallInstance(c config.Instances) spec.ResourcesSpec {
	return spec.ResourcesSpec{CPUs: c.CPUs, Memory: c.Memory, Pids: int64(c.Pids), Shm: c.Shm}
}
