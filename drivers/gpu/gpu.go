// Package gpu is the vocabulary of GPUs: identities, what a device is, how
// devices are linked. It is a leaf: every room may import it.
package gpu

// UUID identifies a GPU for its life: "GPU-8f6c…". It is never an index.
type UUID string

// PCIAddress is "0000:1b:00.0", lower case, domain of four digits.
type PCIAddress string

// Device is one GPU as inventoried. Absent facts are zero.
type Device struct {
	UUID         UUID       `json:"uuid"`
	Index        int        `json:"index"` // NVML's, may change at reboot
	Minor        uint32     `json:"minor"` // of /dev/nvidiaN
	PCI          PCIAddress `json:"pci"`
	Model        string     `json:"model"`        // "NVIDIA H100 80GB HBM3"
	Architecture string     `json:"architecture"` // "Hopper"
	Serial       string     `json:"serial"`
	VBIOS        string     `json:"vbios"`
	MemoryBytes  uint64     `json:"memoryBytes"`
	Cores        int        `json:"cores"`
	SMs          int        `json:"sms"`
	NUMANode     int        `json:"numaNode"`
	MIGEnabled   bool       `json:"migEnabled"`
}

// LinkKind says how two GPUs reach each other, closest first.
type LinkKind string

// The kinds of link, in nvidia-smi's terms.
const (
	LinkNVLink LinkKind = "NV"   // NVLink, directly or through NVSwitch
	LinkPIX    LinkKind = "PIX"  // one PCIe bridge
	LinkNode   LinkKind = "NODE" // one NUMA node
	LinkSystem LinkKind = "SYS"  // across NUMA nodes
)

// Link is the connection of two GPUs. Lanes is the number of NVLinks, 0 for PCIe.
type Link struct {
	A     UUID     `json:"a"`
	B     UUID     `json:"b"`
	Kind  LinkKind `json:"kind"`
	Lanes int      `json:"lanes"`
}

// Inventory is all GPUs of a host at one moment.
type Inventory struct {
	DriverVersion string   `json:"driverVersion"`
	CUDAVersion   string   `json:"cudaVersion"`
	Devices       []Device `json:"devices"`
	Links         []Link   `json:"links"`
}

// Sample is the measured state of one GPU; a nil pointer is "not supported",
// never a sentinel. Units are in the names.
type Sample struct {
	UUID                UUID     `json:"uuid"`
	UtilizationPercent  *float64 `json:"utilizationPercent,omitempty"`
	MemoryUsedBytes     *uint64  `json:"memoryUsedBytes,omitempty"`
	MemoryFreeBytes     *uint64  `json:"memoryFreeBytes,omitempty"`
	MemoryReservedBytes *uint64  `json:"memoryReservedBytes,omitempty"`
	MemoryUtilPercent   *float64 `json:"memoryUtilPercent,omitempty"`
	EncoderPercent      *float64 `json:"encoderPercent,omitempty"`
	DecoderPercent      *float64 `json:"decoderPercent,omitempty"`
	TemperatureCelsius  *float64 `json:"temperatureCelsius,omitempty"`
	MemoryTempCelsius   *float64 `json:"memoryTempCelsius,omitempty"`
	PowerWatts          *float64 `json:"powerWatts,omitempty"`
	EnergyJoules        *float64 `json:"energyJoules,omitempty"`
	SMClockHertz        *float64 `json:"smClockHertz,omitempty"`
	MemoryClockHertz    *float64 `json:"memoryClockHertz,omitempty"`
	PCIeReplays         *uint64  `json:"pcieReplays,omitempty"`
	ECCErrors           *uint64  `json:"eccErrors,omitempty"` // of memory, not corrected, since the driver was loaded
	Processes           *int     `json:"processes,omitempty"` // that the driver sees on it
}
