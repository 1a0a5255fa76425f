package sim_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

func TestIdentitiesDependOnSeedAlone(t *testing.T) {
	seen := map[gpu.UUID]string{}
	for _, s := range sim.Scenarios() {
		for _, seed := range []string{"", "a", "b"} {
			first, again := s.Inventory(seed), s.Inventory(seed)
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("%s %q is not the same again:\n%s", s.Name, seed, diff)
			}
			for _, d := range first.Devices {
				if was, twice := seen[d.UUID]; twice {
					t.Errorf("%s is in %s and in %s %q", d.UUID, was, s.Name, seed)
				}
				seen[d.UUID] = s.Name
				if _, err := gpu.ParseUUID(string(d.UUID)); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestScenarios holds the facts against what data sheets say.
func TestScenarios(t *testing.T) {
	for _, row := range []struct {
		name  string
		cores int
		sms   int
		gib   uint64
		lanes int
	}{
		{"dgx-a100", 6912, 108, 40, 12},
		{"dgx-h100", 16896, 132, 80, 18},
		{"dgx-h200", 16896, 132, 141, 18},
		{"dgx-b200", 18944, 148, 180, 18},
		{"nvlink-pairs", 6912, 108, 40, 4},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, err := sim.Find(row.name)
			if err != nil {
				t.Fatal(err)
			}
			inv := s.Inventory("x")
			if len(inv.Devices) != 8 || len(inv.Links) != 28 {
				t.Fatalf("have %d devices, %d links", len(inv.Devices), len(inv.Links))
			}
			nodes := map[int]int{}
			for _, d := range inv.Devices {
				nodes[d.NUMANode]++
				if d.Cores != row.cores || d.SMs != row.sms || d.MemoryBytes>>30 != row.gib {
					t.Errorf("have %+v", d)
				}
			}
			if diff := cmp.Diff(map[int]int{0: 4, 1: 4}, nodes); diff != "" {
				t.Errorf("NUMA nodes:\n%s", diff)
			}
			if l := inv.Links[0]; l.Kind != gpu.LinkNVLink || l.Lanes != row.lanes {
				t.Errorf("the first pair is linked by %+v", l)
			}
		})
	}
}

func TestUnknownScenarioNamesTheKnown(t *testing.T) {
	_, err := sim.Find("dgx-1")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "dgx-h100") {
		t.Errorf("have %v", err)
	}
}

func TestReadingsAreTheSameEverywhereAndEnergyGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SampledFrom(sim.Scenarios()).Draw(t, "host")
		i := rapid.IntRange(0, 7).Draw(t, "gpu")
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 1e17).Draw(t, "at")))
		step := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "later"))
		before, after := s.Read(i, at, sim.Faults{}), s.Read(i, at.Add(step), sim.Faults{})
		if again := s.Read(i, at, sim.Faults{}); again != before {
			t.Errorf("have %+v, then %+v", before, again)
		}
		if after.Millijoules < before.Millijoules {
			t.Errorf("energy fell from %d to %d in %v", before.Millijoules, after.Millijoules, step)
		}
		if before.UtilizationPercent > 100 || before.Milliwatts > uint32(s.BusyWatts*1000) || before.Celsius > 90 {
			t.Errorf("have %+v", before)
		}
	})
}

func TestFaultsComeThroughTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults")
	if f, err := sim.ReadFaults(path); err != nil || f.Hangs(0) {
		t.Errorf("no file: have %+v, %v", f, err)
	}
	want := sim.Faults{Hang: []int{1}, Unplug: []int{2}, Used: map[int]uint64{3: 7}, Busy: map[int]int{3: 2}, Celsius: map[int]uint32{3: 99}, ECC: map[int]uint64{3: 5}}
	if err := sim.WriteFaults(path, want); err != nil {
		t.Fatal(err)
	}
	have, err := sim.ReadFaults(path)
	if diff := cmp.Diff(want, have); err != nil || diff != "" {
		t.Fatalf("error %v (-want +have):\n%s", err, diff)
	}
	s, _ := sim.Find("dgx-h100")
	r := s.Read(3, time.Now(), have)
	if !have.Hangs(1) || !have.Gone(2) || r.MemoryUsedBytes != 7 || r.Processes != 2 || r.Celsius != 99 || r.ECCErrors != 5 {
		t.Errorf("have %+v", r)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.ReadFaults(path); err == nil {
		t.Error("a broken file is no error")
	}
}

func TestDriverTree(t *testing.T) {
	dir := t.TempDir()
	s, _ := sim.Find("dgx-h100")
	for range 2 { // again changes nothing
		if err := sim.WriteDriverTree(dir, s); err != nil {
			t.Fatal(err)
		}
	}
	for link, want := range map[string]string{
		"libcuda.so": "libcuda.so.1", "libcuda.so.1": "libcuda.so.580.95.05",
		"libnvidia-ml.so": "libnvidia-ml.so.1", "libnvidia-ml.so.1": "libnvidia-ml.so.580.95.05",
	} {
		if have, err := os.Readlink(filepath.Join(dir, "lib64", link)); err != nil || have != want {
			t.Errorf("%s leads to %q, %v; want %q", link, have, err, want)
		}
	}
	out, err := exec.Command(filepath.Join(dir, "bin", "nvidia-smi")).CombinedOutput()
	if !strings.Contains(string(out), "NVIDIA-SMI 580.95.05 (simulated)") {
		t.Errorf("have %s, %v", out, err)
	}
}

func TestDeviceNodes(t *testing.T) {
	s, _ := sim.Find("dgx-h100")
	nodes := s.DeviceNodes()
	want := []sim.DeviceNode{{"nvidiactl", 195, 255}, {"nvidia-uvm", 511, 0}, {"nvidia0", 195, 0}}
	if diff := cmp.Diff(want, nodes[:3]); diff != "" || len(nodes) != 10 {
		t.Errorf("have %d (-want +have):\n%s", len(nodes), diff)
	}
}
