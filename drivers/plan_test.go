package drivers_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/drivertest"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

var update = flag.Bool("update", false, "write the golden plans anew")

// golden compares with testdata/name.txt.
func golden(t *testing.T, name, have string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(have), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), have); diff != "" {
		t.Errorf("(-want +have):\n%s", diff)
	}
}

// text is the plan, with the needs a person is not shown.
func text(t *testing.T, p plan.Plan) string {
	t.Helper()
	o, err := p.Ordered()
	if err != nil {
		t.Fatal(err)
	}
	out := o.Text()
	for _, s := range o.Steps {
		for _, need := range s.Needs {
			out += string(s.ID) + "\n    needs " + string(need) + "\n"
		}
	}
	return out
}

func haveOf(t *testing.T, letters string) drivers.Have {
	inv := inventoryOf(t, "nvlink-pairs")
	return drivers.Have{Inventory: inv, Entries: ledger(inv, letters), BootID: boot}
}

func request(count int) drivers.Request {
	return drivers.Request{Instance: "uid-n", Tenant: "acme", Name: "n", Count: count, Want: true}
}

func TestPlans(t *testing.T) {
	instance := func(letters string, r drivers.Request) plan.Plan {
		p, err := drivers.PlanInstance(r, haveOf(t, letters))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	golden(t, "start", text(t, instance("a.......", request(2))))
	golden(t, "start-resumed", text(t, instance("n.......", request(2))))
	golden(t, "shrink", text(t, instance("nnnn....", request(2))))
	golden(t, "handover", text(t, drivers.PlanHandover(haveOf(t, "ab~!...."), map[spec.UID]bool{"uid-a": true}, noon())))

	fresh := haveOf(t, "")
	fresh.Inventory.Devices = fresh.Inventory.Devices[:1]
	golden(t, "handover-first-boot", text(t, drivers.PlanHandover(fresh, nil, noon())))

	hopeless := haveOf(t, ".......~")
	for id, e := range hopeless.Entries {
		if e.State == drivers.Scrubbing {
			e.State, e.Reason, e.Attempts.Failed = drivers.Draining, "its VBIOS was \"1\" and is \"2\"", drivers.FailedTries
			hopeless.Entries[id] = e
		}
	}
	golden(t, "handover-hopeless", text(t, drivers.PlanHandover(hopeless, nil, noon())))
}

// TestGPUsOfAnotherBootAreNotGivenOut: after a reboot nothing is presumed, not
// even that a GPU is free.
func TestGPUsOfAnotherBootAreNotGivenOut(t *testing.T) {
	have := haveOf(t, "nn......")
	have.BootID = "boot-3"
	_, err := drivers.PlanInstance(request(2), have)
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "8 in hand-over") {
		t.Errorf("have %v", err)
	}
	if !strings.Contains(fault.HintOf(err), "by themselves") {
		t.Errorf("the hint is %q", fault.HintOf(err))
	}
}

func TestNotWantedPlansNothing(t *testing.T) {
	r := request(2)
	r.Want = false
	if p, err := drivers.PlanInstance(r, haveOf(t, "nn......")); err != nil || !p.Empty() {
		t.Errorf("have %v, %s", err, p.Text())
	}
}

// oneGPU is a host whose only GPU was given back by an instance that is gone.
func oneGPU(t *testing.T) (*drivertest.Host, gpu.Device) {
	inv := inventoryOf(t, "dgx-h100")
	inv.Devices = inv.Devices[:1]
	inv.Links = nil
	h := drivertest.NewHost(inv)
	d := inv.Devices[0]
	h.Ledger[d.UUID] = drivers.Entry{
		GPU: d.UUID, State: drivers.Assigned, Owner: "uid-a", Tenant: "acme", Name: "a", BootID: boot, Since: noon(),
		Facts: &drivers.Facts{Model: d.Model, Serial: d.Serial, VBIOS: d.VBIOS, MemoryBytes: d.MemoryBytes},
	}
	return h, d
}

// round plans and applies hand-over once, as the loop does.
func round(t *testing.T, h *drivertest.Host, now time.Time) error {
	t.Helper()
	r := drivers.New(drivers.Deps{NVML: h, Ledger: h, Holders: h, Servants: h, Resetter: h, Now: func() time.Time { return now }, BootID: boot})
	have, err := r.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o, err := drivers.PlanHandover(have, nil, now).Ordered()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range o.Steps {
		if err := r.Apply(context.Background(), s, nil); err != nil {
			return err
		}
	}
	return nil
}

func TestHolderIsNamedAndGetsTime(t *testing.T) {
	h, d := oneGPU(t)
	h.Open[0] = []drivers.Holder{{PID: 4711, Command: "python", UID: 1879048192}}
	now := noon()
	for range 3 * drivers.HeldTries { // many at once cost nothing but tries
		err := round(t, h, now)
		if !fault.Is(err, fault.Temporary) || !strings.Contains(err.Error(), "held by pid 4711 (python, uid 1879048192)") {
			t.Fatalf("have %v", err)
		}
	}
	if e := h.Ledger[d.UUID]; e.State != drivers.Draining || e.Owner != "uid-a" {
		t.Fatalf("have %+v", e)
	}
	if err := round(t, h, now.Add(drivers.HeldPatience)); err != nil {
		t.Fatal(err)
	}
	if e := h.Ledger[d.UUID]; e.State != drivers.Quarantined || !strings.Contains(e.Reason, "4711") {
		t.Errorf("have %+v", e)
	}
}

// TestHeldGPUDelaysNoOther: of four GPUs given back the first two are held; the
// others are free after as many rounds as there are held ones, and one.
func TestHeldGPUDelaysNoOther(t *testing.T) {
	h := drivertest.NewHost(inventoryOf(t, "nvlink-pairs"))
	for id, e := range ledger(h.GPUs, "aaaa....") {
		h.Ledger[id] = e
	}
	h.Open[0], h.Open[1] = []drivers.Holder{{PID: 1}}, []drivers.Holder{{PID: 2}}
	for range 3 {
		if err := round(t, h, noon()); !fault.Is(err, fault.Temporary) {
			t.Fatalf("have %v", err)
		}
	}
	for i, want := range []drivers.State{drivers.Draining, drivers.Draining, drivers.Free, drivers.Free} {
		if e := h.Ledger[h.GPUs.Devices[i].UUID]; e.State != want {
			t.Errorf("GPU %d is %s, want %s", i, e.State, want)
		}
	}
}

// TestServantsOfTheHostHoldNothing: the NVML helper and the persistence daemon have
// every GPU open at all times.
func TestServantsOfTheHostHoldNothing(t *testing.T) {
	h, d := oneGPU(t)
	h.Own[40], h.Own[41] = true, true
	h.Open[0] = []drivers.Holder{{PID: 40, Command: "nvml-helper"}, {PID: 42, Command: "nvml-helper"}, {PID: 41, Command: "nvidia-persiste"}}
	if err := round(t, h, noon()); err == nil || !strings.Contains(err.Error(), "held by pid 42 (nvml-helper, uid 0)") {
		t.Fatalf("a helper that was abandoned: have %v", err)
	}
	h.Open[0] = slices.Delete(h.Open[0], 1, 2)
	if err := round(t, h, noon()); err != nil || h.Ledger[d.UUID].State != drivers.Free {
		t.Errorf("have %v, %+v", err, h.Ledger[d.UUID])
	}
}

// TestWhatCannotBeKnownIsHeld: it gets time, as what is known to be held does.
func TestWhatCannotBeKnownIsHeld(t *testing.T) {
	for want, unknown := range map[string]drivertest.Unknown{
		"NVML cannot say whether a process uses it":        {Processes: true},
		"NVML cannot say how much of its memory is in use": {Memory: true},
	} {
		h, d := oneGPU(t)
		h.Unknown[d.UUID] = unknown
		for range drivers.HeldTries {
			if err := round(t, h, noon()); !fault.Is(err, fault.Temporary) || !strings.Contains(err.Error(), want) {
				t.Fatalf("have %v, want %s", err, want)
			}
		}
		if e := h.Ledger[d.UUID]; e.State != drivers.Draining || e.Attempts.Held != drivers.HeldTries {
			t.Errorf("have %+v", e)
		}
		delete(h.Unknown, d.UUID)
		if err := round(t, h, noon()); err != nil || h.Ledger[d.UUID].State != drivers.Free {
			t.Errorf("have %v, %+v", err, h.Ledger[d.UUID])
		}
	}
}

func TestHolderThatEndsIsForgiven(t *testing.T) {
	h, d := oneGPU(t)
	h.Open[0] = []drivers.Holder{{PID: 4711}}
	if err := round(t, h, noon()); err == nil {
		t.Fatal("held, and no error")
	}
	delete(h.Open, 0)
	if err := round(t, h, noon()); err != nil {
		t.Fatal(err)
	}
	if e := h.Ledger[d.UUID]; e.State != drivers.Free || e.Attempts != (drivers.Attempts{}) || e.Owner != "" {
		t.Errorf("have %+v", e)
	}
}

func TestVerificationFindsWhatChanged(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(h *drivertest.Host, d *gpu.Device)
		want   string
	}{
		{"VBIOS", func(_ *drivertest.Host, d *gpu.Device) { d.VBIOS = "66.66" }, `its VBIOS was "96.00.89.00.01" and is "66.66"`},
		{"serial", func(_ *drivertest.Host, d *gpu.Device) { d.Serial = "0" }, "its serial number was"},
		{"model", func(_ *drivertest.Host, d *gpu.Device) { d.Model = "T4" }, "its model was"},
		{"less memory", func(_ *drivertest.Host, d *gpu.Device) { d.MemoryBytes /= 2 }, "its memory was 81920 MiB and is 40960 MiB"},
		{"memory in use", func(h *drivertest.Host, d *gpu.Device) { h.Used[d.UUID] = 8 << 30 }, "8192 MiB of its memory are in use"},
		{"a little memory in use", func(h *drivertest.Host, d *gpu.Device) { h.Used[d.UUID] = 100 << 20 }, "100 MiB of its memory are in use"},
	} {
		t.Run(r.name, func(t *testing.T) {
			h, d := oneGPU(t)
			r.change(h, &h.GPUs.Devices[0])
			for range drivers.FailedTries {
				if err := round(t, h, noon()); err == nil || !strings.Contains(err.Error(), r.want) {
					t.Fatalf("have %v, want %s", err, r.want)
				}
			}
			if err := round(t, h, noon()); err != nil {
				t.Fatal(err)
			}
			if e := h.Ledger[d.UUID]; e.State != drivers.Quarantined || !strings.Contains(e.Reason, r.want) {
				t.Errorf("have %+v", e)
			}
		})
	}
}

// TestReleaseAcceptsWhatTheGPUIsNow: a VBIOS that was updated on purpose must not
// lead back into quarantine for ever.
func TestReleaseAcceptsWhatTheGPUIsNow(t *testing.T) {
	h, d := oneGPU(t)
	h.GPUs.Devices[0].VBIOS = "97.00"
	for range drivers.FailedTries + 1 {
		_ = round(t, h, noon())
	}
	p, err := drivers.PlanRelease(drivers.Have{Inventory: h.GPUs, Entries: h.Ledger, BootID: boot}, d.UUID, "VBIOS updated")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(apply(h, p), round(t, h, noon())); err != nil {
		t.Fatal(err)
	}
	if e := h.Ledger[d.UUID]; e.State != drivers.Free || e.Facts.VBIOS != "97.00" {
		t.Errorf("have %+v", e)
	}
}

// TestAbsentGPUGetsTime: one that hangs is not in the inventory for a while.
func TestAbsentGPUGetsTime(t *testing.T) {
	h, d := oneGPU(t)
	devices := h.GPUs.Devices
	h.GPUs.Devices = nil
	for range 2 * drivers.HeldTries {
		if err := round(t, h, noon()); !fault.Is(err, fault.Temporary) || !strings.Contains(err.Error(), "it hangs") {
			t.Fatalf("have %v", err)
		}
	}
	h.GPUs.Devices = devices
	if err := round(t, h, noon()); err != nil || h.Ledger[d.UUID].State != drivers.Free {
		t.Errorf("back again: have %v, %+v", err, h.Ledger[d.UUID])
	}
}

// TestNVMLAwayIsNoVerdict: what could not be asked was not answered badly.
func TestNVMLAwayIsNoVerdict(t *testing.T) {
	h, d := oneGPU(t)
	for range 10 {
		h.Fail = func(operation string) error {
			if operation == "samples" {
				return errors.New("no answer")
			}
			return nil
		}
		if err := round(t, h, noon()); !fault.Is(err, fault.Temporary) {
			t.Fatalf("have %v", err)
		}
	}
	h.Fail = nil
	if err := round(t, h, noon()); err != nil {
		t.Fatal(err)
	}
	if e := h.Ledger[d.UUID]; e.State != drivers.Free {
		t.Errorf("have %+v", e)
	}
}

func TestHostWithoutADriver(t *testing.T) {
	h := drivertest.NewHost(gpu.Inventory{})
	h.Fail = func(operation string) error {
		if operation == "inventory" {
			return fault.New(fault.Unsupported, "initialise NVML", "no library")
		}
		return nil
	}
	have, err := room(h).Observe(t.Context())
	if err != nil || len(have.Inventory.Devices) != 0 {
		t.Errorf("never had a GPU: have %+v, %v", have, err)
	}
	h.Ledger["GPU-1"] = drivers.Entry{GPU: "GPU-1", State: drivers.Free}
	if _, err := room(h).Observe(t.Context()); !fault.Is(err, fault.Unsupported) {
		t.Errorf("its GPUs are out of sight: have %v", err)
	}
}

func TestQuarantineAndRelease(t *testing.T) {
	h := drivertest.NewHost(inventoryOf(t, "nvlink-pairs"))
	for id, e := range ledger(h.GPUs, ".a......") {
		h.Ledger[id] = e
	}
	free, held := h.GPUs.Devices[0].UUID, h.GPUs.Devices[1].UUID
	run := func(p plan.Plan, err error) {
		t.Helper()
		if err == nil {
			err = apply(h, p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	now := func() drivers.Have { return drivers.Have{Inventory: h.GPUs, Entries: h.Ledger, BootID: boot} }

	if _, err := drivers.PlanQuarantine(now(), held, "noisy"); !fault.Is(err, fault.Busy) {
		t.Errorf("a tenant's GPU: have %v", err)
	}
	if _, err := drivers.PlanQuarantine(now(), "GPU-none", "noisy"); !fault.Is(err, fault.NotFound) {
		t.Errorf("no GPU: have %v", err)
	}
	if _, err := drivers.PlanRelease(now(), free, "mended"); !fault.Is(err, fault.Conflict) {
		t.Errorf("a free GPU: have %v", err)
	}
	run(drivers.PlanQuarantine(now(), free, "noisy"))
	if p := drivers.PlanHandover(now(), map[spec.UID]bool{"uid-a": true}, noon()); !p.Empty() {
		t.Errorf("a quarantined GPU comes back by itself:\n%s", p.Text())
	}
	run(drivers.PlanRelease(now(), free, "mended"))
	run(drivers.PlanHandover(now(), map[spec.UID]bool{"uid-a": true}, noon()), nil)
	if e := h.Ledger[free]; e.State != drivers.Free {
		t.Errorf("have %+v", e)
	}
}

func TestAllowedIsTheDiagram(t *testing.T) {
	var have strings.Builder
	for _, from := range drivers.States() {
		have.WriteString(string(from) + ":")
		for _, to := range drivers.States() {
			if drivers.Allowed(from, to) {
				have.WriteString(" " + string(to))
			}
		}
		have.WriteString("\n")
	}
	golden(t, "allowed", have.String())
}
