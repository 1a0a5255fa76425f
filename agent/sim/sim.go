// Package sim is a pretend GPU host as plain data: which GPUs it has, how they
// are linked, what they measure at a moment, and what is broken in it.
//
// It knows no NVML and imports no driver: the NVML helper dresses its mock
// servers with it, the agent reads from it which device nodes to stand in, and
// tests compare what came through the helper with it.
//
//	s, _ := sim.Find("dgx-h100")
//	inventory := s.Inventory("seed") // the same after every restart
package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Scenario is one kind of host.
type Scenario struct {
	Name          string // "dgx-h100"
	Model         string
	Architecture  string
	ComputeMajor  int // CUDA compute capability
	ComputeMinor  int
	MemoryBytes   uint64
	ReservedBytes uint64 // of them, for the driver itself
	SMs           int
	CoresPerSM    int
	VBIOS         string
	DriverVersion string
	CUDAVersion   string // "13.0"
	Slots         []Slot
	Fabric        Fabric

	IdleWatts     float64
	BusyWatts     float64
	SMClockMHz    float64
	MemClockMHz   float64
	HasMemoryTemp bool
}

// Slot is where one GPU sits.
type Slot struct {
	PCI      gpu.PCIAddress
	NUMANode int
}

// Fabric is how GPUs are linked by NVLink.
type Fabric struct {
	Lanes  int  // NVLinks of a linked pair
	Switch bool // through NVSwitch, all with all; else bridges between neighbours (0–1, 2–3, …)
}

// Scenarios are all there are, in the order help lists them.
func Scenarios() []Scenario {
	return []Scenario{dgxA100(), dgxH100(), dgxH200(), dgxB200(), pairs()}
}

// Names lists the scenarios' names.
func Names() []string {
	var names []string
	for _, s := range Scenarios() {
		names = append(names, s.Name)
	}
	return names
}

// Find gives a scenario by name.
func Find(name string) (Scenario, error) {
	all := Scenarios()
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return Scenario{}, fault.New(fault.Invalid, "simulate "+name, "there is no such host; there are %s", strings.Join(Names(), ", "))
	}
	return all[i], nil
}

// Inventory is the host's GPUs. Their identities depend on scenario, seed and
// position alone.
func (s Scenario) Inventory(seed string) gpu.Inventory {
	inv := gpu.Inventory{DriverVersion: s.DriverVersion, CUDAVersion: s.CUDAVersion}
	for i := range s.Slots {
		inv.Devices = append(inv.Devices, s.device(seed, i))
	}
	for a := range s.Slots {
		for b := a + 1; b < len(s.Slots); b++ {
			kind, lanes := s.Link(a, b)
			inv.Links = append(inv.Links, gpu.Link{A: inv.Devices[a].UUID, B: inv.Devices[b].UUID, Kind: kind, Lanes: lanes})
		}
	}
	return inv
}

func (s Scenario) device(seed string, i int) gpu.Device {
	return gpu.Device{
		UUID: s.uuid(seed, i), Index: i, Minor: uint32(i), PCI: s.Slots[i].PCI,
		Model: s.Model, Architecture: s.Architecture, Serial: s.serial(seed, i), VBIOS: s.VBIOS,
		MemoryBytes: s.MemoryBytes, Cores: s.SMs * s.CoresPerSM, SMs: s.SMs, NUMANode: s.Slots[i].NUMANode,
	}
}

// Link says how two GPUs of the host reach each other.
func (s Scenario) Link(a, b int) (gpu.LinkKind, int) {
	switch {
	case s.Fabric.Lanes > 0 && (s.Fabric.Switch || a/2 == b/2):
		return gpu.LinkNVLink, s.Fabric.Lanes
	case s.Slots[a].NUMANode == s.Slots[b].NUMANode:
		return gpu.LinkNode, 0
	default:
		return gpu.LinkSystem, 0
	}
}

func (s Scenario) digest(seed string, i int) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", s.Name, seed, i))
}

func (s Scenario) uuid(seed string, i int) gpu.UUID {
	d := s.digest(seed, i)
	return gpu.UUID(fmt.Sprintf("GPU-%x-%x-%x-%x-%x", d[0:4], d[4:6], d[6:8], d[8:10], d[10:16]))
}

func (s Scenario) serial(seed string, i int) string {
	d := s.digest(seed, i)
	return fmt.Sprintf("165%010d", binary.BigEndian.Uint32(d[16:]))
}
