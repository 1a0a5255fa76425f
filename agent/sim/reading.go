package sim

import (
	"math"
	"time"

	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func eight(addresses ...gpu.PCIAddress) []Slot {
	slots := make([]Slot, len(addresses))
	for i, a := range addresses {
		slots[i] = Slot{PCI: a, NUMANode: i * 2 / len(addresses)}
	}
	return slots
}

// Reading is what one GPU measures at a moment, in NVML's own units.
type Reading struct {
	UtilizationPercent uint32
	MemoryPercent      uint32
	MemoryUsedBytes    uint64
	Celsius            uint32
	MemoryCelsius      uint32
	Milliwatts         uint32
	Millijoules        uint64 // since the epoch of the simulation
	SMClockMHz         uint32
	MemClockMHz        uint32
	PCIeReplays        int
	ECCErrors          uint64 // not corrected, since the driver was loaded
	Processes          int
}

// epoch is when every simulated energy counter was zero.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// period is how long a simulated GPU takes from idle to its peak and back.
const period = 10 * time.Minute

// Read gives what GPU i measures at a moment: a slow wave, shifted from GPU to
// GPU, the same at the same time in every process. Energy is the exact integral
// of power, so it never decreases. Faults are laid over it.
func (s Scenario) Read(i int, at time.Time, f Faults) Reading {
	omega := 2 * math.Pi / period.Seconds()
	seconds := at.Sub(epoch).Seconds()
	phase := float64(i) * math.Pi / 4
	load := (1 + math.Sin(omega*seconds+phase)) / 2 // 0..1

	swing := (s.BusyWatts - s.IdleWatts) / 4 // a host of which a quarter is used
	watts := s.IdleWatts + swing*load
	joules := (s.IdleWatts+swing/2)*seconds + swing/2/omega*(math.Cos(phase)-math.Cos(omega*seconds+phase))

	r := Reading{
		UtilizationPercent: uint32(25 * load), MemoryPercent: uint32(10 * load),
		Celsius: uint32(31 + 14*load), MemoryCelsius: uint32(38 + 16*load),
		Milliwatts: uint32(watts * 1000), Millijoules: uint64(max(joules, 0) * 1000),
		SMClockMHz: uint32(s.SMClockMHz), MemClockMHz: uint32(s.MemClockMHz),
		MemoryUsedBytes: 4 * mib,
	}
	return f.apply(i, r)
}
