// Package kmsg reads NVIDIA's errors from the kernel log. NVML does not report
// all of them (62, 79, 119 and 120 among others), and none once a GPU is lost.
//
//	err := kmsg.Follow(ctx, 0, func(e kmsg.XID) { … })
//
// Records of facility kern alone are believed: whoever may write to /dev/kmsg
// can forge any other.
package kmsg

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// XID is one error the driver logged.
type XID struct {
	PCI      gpu.PCIAddress
	Code     int
	Text     string        // what the driver says of it, printable and bounded
	Sequence uint64        // of the record in the kernel log of this boot
	Uptime   time.Duration // of the machine when it was logged
}

// fellOff is the code that a lost GPU would have, had it still been able to
// report it.
const fellOff = 79

// maxText bounds what is kept of a line.
const maxText = 256

// The driver's forms: "NVRM: Xid (PCI:0000:05:00): 79, pid=…", the older one
// without "PCI:", and lines that mean 79 without saying Xid.
var (
	xidForm  = regexp.MustCompile(`^NVRM: Xid \((?:PCI:)?` + addressForm + `\): ([0-9]{1,4})(?:, ?(.*))?$`)
	lostForm = regexp.MustCompile(`^NVRM: (?:The NVIDIA )?GPU (?:at PCI:)?` + addressForm + `:? (?:GPU )?has fallen off the bus`)
)

// addressForm is a PCI address, mostly without its function.
const addressForm = `((?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)`

// Parse reads one record of /dev/kmsg: "priority,sequence,time,flags;text" and
// further lines. It says false for what is no XID of the kernel's own.
func Parse(record string) (XID, bool) {
	head, rest, found := strings.Cut(record, ";")
	text, _, _ := strings.Cut(rest, "\n")
	if !found || !fromKernel(head) {
		return XID{}, false
	}
	x, is := parseText(text)
	x.Sequence, x.Uptime = when(head)
	return x, is
}

// when is a record's place in the log and the machine's uptime, in microseconds.
func when(head string) (sequence uint64, uptime time.Duration) {
	fields := strings.SplitN(head, ",", 4)
	if len(fields) < 3 {
		return 0, 0
	}
	sequence, _ = strconv.ParseUint(fields[1], 10, 64) // written by the kernel alone
	microseconds, _ := strconv.ParseInt(fields[2], 10, 64)
	return sequence, time.Duration(microseconds) * time.Microsecond
}

func parseText(text string) (XID, bool) {
	if parts := xidForm.FindStringSubmatch(text); parts != nil {
		code, _ := strconv.Atoi(parts[2]) // four digits at most
		return xid(parts[1], code, parts[3])
	}
	if parts := lostForm.FindStringSubmatch(text); parts != nil {
		return xid(parts[1], fellOff, "GPU has fallen off the bus")
	}
	return XID{}, false
}

// fromKernel looks at the facility: the priority's bits above the lowest three,
// 0 for the kernel. User space cannot set 0: the kernel makes it 1.
func fromKernel(head string) bool {
	priority, _, _ := strings.Cut(head, ",")
	n, err := strconv.ParseUint(priority, 10, 32)
	return err == nil && n>>3 == 0
}

// xid completes the address: the driver leaves out the function, which is 0.
func xid(address string, code int, text string) (XID, bool) {
	if !strings.Contains(address, ".") {
		address += ".0"
	}
	pci, err := gpu.ParsePCIAddress(address)
	if err != nil {
		return XID{}, false
	}
	return XID{PCI: pci, Code: code, Text: bounded(text)}, true
}

// bounded: part of the text is the name of a tenant's process.
func bounded(text string) string {
	text = fault.Printable(text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}
