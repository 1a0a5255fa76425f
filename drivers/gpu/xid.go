package gpu

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// XIDAction is what an XID error calls for.
type XIDAction string

// The actions, from nothing to hands on the machine.
const (
	XIDIgnore     XIDAction = "ignore"      // informational, or a companion of another
	XIDRestartApp XIDAction = "restart-app" // the tenant's own fault or loss; the GPU is fine
	XIDWorkflow   XIDAction = "workflow"    // depends on what came with it
	XIDResetGPU   XIDAction = "reset-gpu"   // not to be given out again before a reset
	XIDReboot     XIDAction = "reboot"      // only a reboot of the host brings it back
	XIDInspect    XIDAction = "inspect"     // a person has to look
)

func (a XIDAction) known() bool {
	switch a {
	case XIDIgnore, XIDRestartApp, XIDWorkflow, XIDResetGPU, XIDReboot, XIDInspect:
		return true
	}
	return false
}

// XID is one error code of NVIDIA's driver and what it calls for.
type XID struct {
	Code   int
	Name   string
	Action XIDAction
}

// XIDPolicy is the table of codes. Its text form has one code a line: code,
// name and action, separated by tabs; further columns are for people.
type XIDPolicy struct{ byCode map[int]XID }

//go:embed xid.tsv
var shippedXIDs string

// ShippedXIDs is the policy this release comes with: NVIDIA's own buckets,
// narrowed where public experience is clear.
func ShippedXIDs() (XIDPolicy, error) { return ParseXIDs(shippedXIDs) }

// ParseXIDs reads a policy. Empty lines and lines that begin with # are skipped.
func ParseXIDs(text string) (XIDPolicy, error) {
	p := XIDPolicy{byCode: map[int]XID{}}
	line := 0
	for row := range strings.Lines(text) {
		line++
		if row = strings.TrimRight(row, "\r\n"); row == "" || strings.HasPrefix(row, "#") {
			continue
		}
		x, err := parseXID(row)
		if err != nil {
			return XIDPolicy{}, fmt.Errorf("read XID policy: line %d: %w", line, err)
		}
		if _, twice := p.byCode[x.Code]; twice {
			return XIDPolicy{}, fmt.Errorf("read XID policy: line %d: code %d is there twice", line, x.Code)
		}
		p.byCode[x.Code] = x
	}
	return p, nil
}

func parseXID(row string) (XID, error) {
	columns := strings.Split(row, "\t")
	if len(columns) < 3 {
		return XID{}, fmt.Errorf("want code, name and action separated by tabs, have %d columns", len(columns))
	}
	code, err := strconv.ParseUint(columns[0], 10, 16)
	if err != nil {
		return XID{}, fmt.Errorf("%q is no XID code", columns[0])
	}
	x := XID{Code: int(code), Name: columns[1], Action: XIDAction(columns[2])}
	if !x.Action.known() {
		return XID{}, fmt.Errorf("%q is no action", columns[2])
	}
	return x, nil
}

// Lookup finds what a code calls for. A code the policy does not know is for a
// person to inspect.
func (p XIDPolicy) Lookup(code int) (x XID, known bool) {
	if x, known = p.byCode[code]; known {
		return x, true
	}
	return XID{Code: code, Name: "UNKNOWN", Action: XIDInspect}, false
}

// Len is how many codes the policy knows.
func (p XIDPolicy) Len() int { return len(p.byCode) }
