package nvml_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/drivers/drivertest"
	"github.com/gpuhost/gpuhost/drivers/nvml"
)

// agentVariable makes the test binary play an agent that is killed.
const agentVariable = "NVML_TEST_AGENT"

// helperVariable is where TestMain built the helper.
const helperVariable = "NVML_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(agentVariable) != "" {
		playAgent()
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nvml-helper")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "nvml-helper")
	build := exec.Command("go", "build", "-o", path, "./helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -g -Wno-deprecated-declarations")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the helper (it needs cgo and a C compiler): %v\n%s", err, out)
		return 1
	}
	os.Setenv(helperVariable, path)
	return m.Run()
}

// hangs is a deadline for tests in which one is to pass; other tests must not
// meet theirs on a busy machine.
const hangs = time.Second

func options(args ...string) nvml.Options {
	return nvml.Options{Path: os.Getenv(helperVariable), Args: args, Deadline: 20 * time.Second, StartDeadline: 20 * time.Second}
}

func hanging(faults string) nvml.Options {
	o := options("--sim", "dgx-h100", "--faults", faults)
	o.Deadline, o.FirstDeadline = hangs, hangs
	return o
}

func start(t *testing.T, o nvml.Options) *nvml.Client {
	t.Helper()
	before := goleak.IgnoreCurrent()
	c, err := nvml.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		goleak.VerifyNone(t, before) // also of helpers that were killed or abandoned
	})
	return c
}

func TestSimulatedHostsKeepTheContract(t *testing.T) {
	for _, s := range sim.Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			c := start(t, options("--sim", s.Name, "--seed", "x"))
			drivertest.NVMLContract(t, c)
			have, err := c.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s.Inventory("x"), have); diff != "" {
				t.Errorf("what came through NVML is not the scenario (-want +have):\n%s", diff)
			}
		})
	}
}

// TestRealGPUKeepsTheContract says whether the simulator tells the truth.
func TestRealGPUKeepsTheContract(t *testing.T) {
	c, err := nvml.Start(t.Context(), options())
	if fault.Is(err, fault.Unsupported) {
		if fault.HintOf(err) == "" {
			t.Errorf("no hint with %v", err)
		}
		t.Skipf("no GPU on this host: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	drivertest.NVMLContract(t, c)
	inventory, err := c.Inventory(t.Context())
	samples, sampleErr := c.Samples(t.Context())
	t.Logf("%+v %v\n%+v %v", inventory, err, samples, sampleErr)
}

func TestSamplesAreWholeAndAbsentIsAbsent(t *testing.T) {
	for _, row := range []struct {
		host       string
		memoryTemp bool
	}{{"dgx-h100", true}, {"nvlink-pairs", false}} {
		t.Run(row.host, func(t *testing.T) {
			samples, err := start(t, options("--sim", row.host)).Samples(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := samples[0]
			if (s.MemoryTempCelsius != nil) != row.memoryTemp {
				t.Errorf("memory temperature: have %v", s.MemoryTempCelsius)
			}
			if s.PowerWatts == nil || *s.PowerWatts < 10 || s.EnergyJoules == nil || *s.EnergyJoules <= 0 ||
				s.SMClockHertz == nil || *s.SMClockHertz < 1e9 || s.TemperatureCelsius == nil || s.PCIeReplays == nil {
				t.Errorf("have %+v", s)
			}
			total := s.MemoryUsedBytes != nil && s.MemoryFreeBytes != nil && s.MemoryReservedBytes != nil
			scenario, _ := sim.Find(row.host)
			if !total || *s.MemoryUsedBytes+*s.MemoryFreeBytes+*s.MemoryReservedBytes != scenario.MemoryBytes {
				t.Errorf("memory does not add up: %+v", s)
			}
		})
	}
}

func TestKilledHelperIsReplacedAndIdentitiesStay(t *testing.T) {
	c := start(t, options("--sim", "dgx-h100", "--seed", "x"))
	before, err := c.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		kill(t, c)
		after, err := c.Inventory(t.Context())
		if diff := cmp.Diff(before, after); err != nil || diff != "" {
			t.Fatalf("error %v (-before +after):\n%s", err, diff)
		}
	}
	stats, _ := c.Stats(t.Context())
	if stats.Restarts != 3 || stats.Hung != 0 {
		t.Errorf("have %+v", stats)
	}
}

func kill(t *testing.T, c *nvml.Client) {
	t.Helper()
	stats, err := c.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(stats.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitGone(t, stats.PID)
}

// waitGone waits until a process has ended and was reaped.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	fd, err := pidfd(pid)
	if errors.Is(err, syscall.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if !readable(fd, 5*time.Second) {
		t.Fatalf("process %d is still there", pid)
	}
}

func TestHungGPUCostsTheOthersNothing(t *testing.T) {
	faults := filepath.Join(t.TempDir(), "faults")
	c := start(t, hanging(faults))
	all, err := c.Samples(t.Context())
	if err != nil || len(all) != 8 {
		t.Fatalf("have %d samples, %v", len(all), err)
	}
	if err := sim.WriteFaults(faults, sim.Faults{Hang: []int{2}}); err != nil {
		t.Fatal(err)
	}
	first := measure(t, c, 7)
	second := measure(t, c, 7)
	if first < hangs || second > hangs {
		t.Errorf("with a hung GPU: %v, then %v", first, second)
	}
	stats, _ := c.Stats(t.Context())
	if stats.Hung != 1 || stats.Restarts != 1 || !slices.Equal(stats.HungGPUs, []int{2}) {
		t.Errorf("have %+v", stats)
	}
}

func measure(t *testing.T, c *nvml.Client, want int) time.Duration {
	t.Helper()
	begin := time.Now()
	samples, err := c.Samples(t.Context())
	if err != nil || len(samples) != want {
		t.Fatalf("have %d samples, %v; want %d", len(samples), err, want)
	}
	return time.Since(begin)
}

func TestHungGPUIsNotInTheInventoryUntilItAnswers(t *testing.T) {
	faults := filepath.Join(t.TempDir(), "faults")
	o := hanging(faults)
	o.HungFor = time.Nanosecond
	c := start(t, o)
	if err := sim.WriteFaults(faults, sim.Faults{Hang: []int{0}}); err != nil {
		t.Fatal(err)
	}
	hung, _ := c.Stats(t.Context())
	inventory, err := c.Inventory(t.Context())
	if err != nil || len(inventory.Devices) != 7 || inventory.Devices[0].Index != 1 || len(inventory.Links) != 21 {
		t.Errorf("have %d devices, %d links, %v", len(inventory.Devices), len(inventory.Links), err)
	}
	waitGone(t, hung.PID)
	if err := os.Remove(faults); err != nil {
		t.Fatal(err)
	}
	if inventory, err = c.Inventory(t.Context()); err != nil || len(inventory.Devices) != 8 {
		t.Errorf("have %d devices, %v", len(inventory.Devices), err)
	}
}

func TestUnpluggedGPUIsGone(t *testing.T) {
	faults := filepath.Join(t.TempDir(), "faults")
	c := start(t, options("--sim", "dgx-h100", "--faults", faults))
	if err := sim.WriteFaults(faults, sim.Faults{Unplug: []int{3}, Used: map[int]uint64{0: 1 << 30}}); err != nil {
		t.Fatal(err)
	}
	inventory, err := c.Inventory(t.Context())
	if err != nil || len(inventory.Devices) != 7 || len(inventory.Links) != 21 {
		t.Errorf("have %d devices, %d links, %v", len(inventory.Devices), len(inventory.Links), err)
	}
	samples, err := c.Samples(t.Context())
	if err != nil || len(samples) != 7 || *samples[0].MemoryUsedBytes != 1<<30 {
		t.Errorf("have %d samples, %v", len(samples), err)
	}
}

func TestCloseEndsTheHelper(t *testing.T) {
	c := start(t, options("--sim", "dgx-h100"))
	stats, _ := c.Stats(t.Context())
	c.Close()
	waitGone(t, stats.PID)
	if _, err := c.Inventory(t.Context()); !fault.Is(err, fault.Temporary) {
		t.Errorf("have %v", err)
	}
	c.Close()
}

func TestOpenStartsWithTheFirstCall(t *testing.T) {
	c := nvml.Open(options("--sim", "dgx-h100"))
	defer c.Close()
	if stats, _ := c.Stats(t.Context()); stats.PID != 0 {
		t.Errorf("have %+v", stats)
	}
	inventory, err := c.Inventory(t.Context())
	if stats, _ := c.Stats(t.Context()); err != nil || len(inventory.Devices) != 8 || stats.Restarts != 0 {
		t.Errorf("have %d devices, %v, %+v", len(inventory.Devices), err, stats)
	}
	never := nvml.Open(nvml.Options{Path: "/nonexistent/helper"})
	if _, err := never.Inventory(t.Context()); !fault.Is(err, fault.Unsupported) {
		t.Errorf("have %v", err)
	}
}

func TestStartFails(t *testing.T) {
	for _, row := range []struct {
		name string
		o    nvml.Options
		kind fault.Kind
		want string
	}{
		{"no helper", nvml.Options{Path: "/nonexistent/helper"}, fault.Unsupported, "no such file"},
		{"no such host", options("--sim", "dgx-1"), fault.Invalid, "there are dgx-a100"},
		{"a helper that ends", nvml.Options{Path: "/bin/true"}, fault.Temporary, "before it said hello"},
		{"a helper that says nothing", nvml.Options{Path: "/bin/sleep", Args: []string{"60"}, StartDeadline: 50 * time.Millisecond},
			fault.Timeout, "not initialised after 50ms"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := nvml.Start(t.Context(), row.o)
			if !fault.Is(err, row.kind) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("have %v (%s), want %s: %s", err, fault.KindOf(err), row.kind, row.want)
			}
		})
	}
}

// playAgent starts a helper, tells its pid and does no more.
func playAgent() {
	c, err := nvml.Start(context.Background(), options("--sim", "dgx-h100", "--faults", os.Getenv(agentVariable)))
	if err != nil {
		fmt.Println(err)
		return
	}
	stats, _ := c.Stats(context.Background())
	fmt.Println(stats.PID)
	_, _ = c.Inventory(context.Background()) // hangs when so told
	select {}
}

// TestKilledAgentLeavesNoHelper: kill -9 of the agent, with its helper idle and
// with its helper in a call that never returns.
func TestKilledAgentLeavesNoHelper(t *testing.T) {
	hang := filepath.Join(t.TempDir(), "faults")
	if err := sim.WriteFaults(hang, sim.Faults{Hang: []int{0}}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, faults string }{{"idle", "/nonexistent"}, {"in a call", hang}} {
		t.Run(row.name, func(t *testing.T) {
			agent := exec.Command(os.Args[0])
			agent.Env = append(os.Environ(), agentVariable+"="+row.faults)
			out, err := agent.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := agent.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatalf("the agent says %q", line)
			}
			agent.Process.Kill()
			_ = agent.Wait()
			waitGone(t, pid)
		})
	}
}

func BenchmarkSamplesOfEightGPUs(b *testing.B) {
	c, err := nvml.Start(b.Context(), options("--sim", "dgx-h100"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for b.Loop() {
		if _, err := c.Samples(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
