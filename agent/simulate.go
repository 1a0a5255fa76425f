package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/service"
	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/drivers/gpu"
	"github.com/gpuhost/gpuhost/drivers/kmsg"
)

// simulator breaks the pretend host's GPUs: by the file that the NVML helper reads
// at every question, or, for what a driver says to the kernel log, as if it had.
type simulator struct {
	faults  string
	devices []gpu.Device
	xid     func(context.Context, kmsg.XID, time.Time)
	forget  func() // what was read of GPUs before

	mu sync.Mutex // between reading and writing the file
}

// faultsFile is where the helper reads what is broken. It outlives agent and helper
// and not the host's reboot.
func (h *host) faultsFile() string { return filepath.Join(h.paths.Run, "sim-faults.json") }

// simulator is nil where the GPUs are real.
func (h *host) simulator() service.Simulator {
	scenario, err := sim.Find(h.options.Sim)
	if err != nil {
		return nil
	}
	return &simulator{
		faults: h.faultsFile(), devices: scenario.Inventory(h.id).Devices, xid: h.noteXID, forget: h.drivers.Forget,
	}
}

// Break implements service.Simulator.
func (s *simulator) Break(ctx context.Context, r api.SimRequest) error {
	i := slices.IndexFunc(s.devices, func(d gpu.Device) bool { return d.UUID == r.GPU })
	if i < 0 {
		return fault.New(fault.NotFound, "simulate "+string(r.Fault), "there is no GPU %s", r.GPU).WithHint("gpuhost gpu list")
	}
	if r.Fault == api.SimXID {
		s.xid(ctx, kmsg.XID{PCI: s.devices[i].PCI, Code: int(r.Value), Text: "simulated"}, time.Now())
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	faults, err := sim.ReadFaults(s.faults)
	if err != nil {
		return err
	}
	defer s.forget()
	return sim.WriteFaults(s.faults, broken(faults, i, r))
}

func broken(f sim.Faults, i int, r api.SimRequest) sim.Faults {
	switch r.Fault {
	case api.SimHang:
		f.Hang = append(f.Hang, i)
	case api.SimUnplug:
		f.Unplug = append(f.Unplug, i)
	case api.SimTemperature:
		f.Celsius = with(f.Celsius, i, r.Value)
	case api.SimECC:
		f.ECC = with(f.ECC, i, uint64(r.Value))
	}
	return f
}

func with[V any](m map[int]V, key int, value V) map[int]V {
	if m == nil {
		m = make(map[int]V)
	}
	m[key] = value
	return m
}

// Mend implements service.Simulator. A GPU that hung is asked again only some time
// later, as a real one is.
func (s *simulator) Mend(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.forget()
	if err := os.Remove(s.faults); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
