package sim

const mib = 1 << 20

// The four DGX generations: eight GPUs, four on each of two NUMA nodes, all
// joined by NVSwitch. Facts are from NVIDIA's data sheets; addresses are those
// such machines usually show.

func dgxA100() Scenario {
	return Scenario{
		Name: "dgx-a100", Model: "NVIDIA A100-SXM4-40GB", Architecture: "Ampere", ComputeMajor: 8,
		MemoryBytes: 40960 * mib, ReservedBytes: 456 * mib, SMs: 108, CoresPerSM: 64, VBIOS: "92.00.45.00.03",
		DriverVersion: driverVersion, CUDAVersion: cudaVersion,
		Slots:     eight("0000:07:00.0", "0000:0f:00.0", "0000:47:00.0", "0000:4e:00.0", "0000:87:00.0", "0000:90:00.0", "0000:b7:00.0", "0000:bd:00.0"),
		Fabric:    Fabric{Lanes: 12, Switch: true},
		IdleWatts: 52, BusyWatts: 400, SMClockMHz: 1410, MemClockMHz: 1215, HasMemoryTemp: true,
	}
}

func dgxH100() Scenario {
	return Scenario{
		Name: "dgx-h100", Model: "NVIDIA H100 80GB HBM3", Architecture: "Hopper", ComputeMajor: 9,
		MemoryBytes: 81920 * mib, ReservedBytes: 623 * mib, SMs: 132, CoresPerSM: 128, VBIOS: "96.00.89.00.01",
		DriverVersion: driverVersion, CUDAVersion: cudaVersion,
		Slots:     hopperSlots(),
		Fabric:    Fabric{Lanes: 18, Switch: true},
		IdleWatts: 70, BusyWatts: 700, SMClockMHz: 1980, MemClockMHz: 2619, HasMemoryTemp: true,
	}
}

func dgxH200() Scenario {
	s := dgxH100()
	s.Name, s.Model = "dgx-h200", "NVIDIA H200"
	s.MemoryBytes, s.VBIOS, s.MemClockMHz = 144384*mib, "96.00.BC.00.01", 3201
	return s
}

func dgxB200() Scenario {
	return Scenario{
		Name: "dgx-b200", Model: "NVIDIA B200", Architecture: "Blackwell", ComputeMajor: 10,
		MemoryBytes: 184320 * mib, ReservedBytes: 718 * mib, SMs: 148, CoresPerSM: 128, VBIOS: "97.00.82.00.18",
		DriverVersion: driverVersion, CUDAVersion: cudaVersion,
		Slots:     hopperSlots(),
		Fabric:    Fabric{Lanes: 18, Switch: true},
		IdleWatts: 140, BusyWatts: 1000, SMClockMHz: 1965, MemClockMHz: 3996, HasMemoryTemp: true,
	}
}

// pairs is no machine one can buy: NVLink bridges join neighbours only, so that
// it matters which GPUs are given together. On a DGX all pairs are equal.
func pairs() Scenario {
	s := dgxA100()
	s.Name, s.Fabric = "nvlink-pairs", Fabric{Lanes: 4}
	s.HasMemoryTemp = false
	return s
}

const (
	driverVersion = "580.95.05"
	cudaVersion   = "13.0"
)

func hopperSlots() []Slot {
	return eight("0000:1b:00.0", "0000:43:00.0", "0000:52:00.0", "0000:61:00.0", "0000:9d:00.0", "0000:c3:00.0", "0000:d1:00.0", "0000:df:00.0")
}
