package nvml_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/drivers"
	"github.com/gpuhost/gpuhost/drivers/drivertest"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// hostUnderTest is the room on the helper with a simulated host. Ledger and
// holders are pretended.
type hostUnderTest struct {
	room   *drivers.Room
	faults string
}

func newHost(t *testing.T, deadline time.Duration) hostUnderTest {
	t.Helper()
	faults := filepath.Join(t.TempDir(), "faults")
	o := hanging(faults)
	o.Deadline, o.FirstDeadline = deadline, deadline
	rest := drivertest.NewHost(gpu.Inventory{})
	deps := drivers.Deps{NVML: start(t, o), Ledger: rest, Holders: rest, Servants: rest, Resetter: rest, BootID: "boot"}
	return hostUnderTest{faults: faults, room: drivers.New(deps)}
}

func (h hostUnderTest) observe(t *testing.T) drivers.Have {
	t.Helper()
	have, err := h.room.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// handOver runs one round of hand-over and gives what failed.
func (h hostUnderTest) handOver(t *testing.T, present map[spec.UID]bool) error {
	t.Helper()
	p, err := drivers.PlanHandover(h.observe(t), present, time.Now()).Ordered()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		if err := h.room.Apply(t.Context(), s, nil); err != nil {
			return err
		}
	}
	return nil
}

func (h hostUnderTest) start(t *testing.T, r drivers.Request) {
	t.Helper()
	p, err := drivers.PlanInstance(r, h.observe(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.Steps {
		if err := h.room.Apply(t.Context(), s, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLifeOfGPUs goes once around the ledger, with what a tenant may leave
// behind: memory in use, a process only the driver sees, another VBIOS.
func TestLifeOfGPUs(t *testing.T) {
	h := newHost(t, 20*time.Second)
	if err := h.handOver(t, nil); err != nil {
		t.Fatal(err)
	}
	r := drivers.Request{Instance: "uid-a", Tenant: "acme", Name: "a", Count: 4, Want: true}
	h.start(t, r)

	left := sim.Faults{Used: map[int]uint64{0: 8 << 30}, Busy: map[int]int{1: 1}, VBIOS: map[int]string{2: "66.66"}}
	if err := sim.WriteFaults(h.faults, left); err != nil {
		t.Fatal(err)
	}
	var said []string
	for range 8 {
		if err := h.handOver(t, nil); err != nil {
			said = append(said, err.Error())
		}
	}
	for _, want := range []string{"8192 MiB of its memory are in use", "held by processes that only the driver sees: 1", `its VBIOS was "96.00.89.00.01" and is "66.66"`} {
		if !strings.Contains(strings.Join(said, "\n"), want) {
			t.Errorf("nothing says %q:\n%s", want, strings.Join(said, "\n"))
		}
	}
	for i, want := range []drivers.State{drivers.Quarantined, drivers.Draining, drivers.Quarantined, drivers.Free, drivers.Free} {
		d := h.observe(t).Inventory.Devices[i]
		if e := h.observe(t).Entries[d.UUID]; e.State != want {
			t.Errorf("GPU %d is %s (%s), want %s", i, e.State, e.Reason, want)
		}
	}
	if err := os.Remove(h.faults); err != nil {
		t.Fatal(err)
	}
	if err := h.handOver(t, nil); err != nil {
		t.Error(err)
	}
}

// TestHungGPUStopsNoOther: GPU 0 hangs while it is handed over; an instance
// still starts on the others.
func TestHungGPUStopsNoOther(t *testing.T) {
	h := newHost(t, hangs)
	if err := h.handOver(t, nil); err != nil {
		t.Fatal(err)
	}
	h.start(t, drivers.Request{Instance: "uid-a", Tenant: "acme", Name: "a", Count: 1, Want: true})
	if err := sim.WriteFaults(h.faults, sim.Faults{Hang: []int{0}}); err != nil {
		t.Fatal(err)
	}
	if err := h.handOver(t, nil); err == nil || !strings.Contains(err.Error(), "it hangs") {
		t.Errorf("a GPU that hangs: have %v", err)
	}
	h.start(t, drivers.Request{Instance: "uid-b", Tenant: "acme", Name: "b", Count: 7, Want: true})
}
