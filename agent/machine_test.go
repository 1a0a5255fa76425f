package agent

import "testing"

func TestMemTotal(t *testing.T) {
	got, found := memTotal([]byte("MemFree: 1 kB\nMemTotal:       24683620 kB\n"))
	if !found || got != 24683620<<10 {
		t.Errorf("got %d, %v", got, found)
	}
	if _, found := memTotal([]byte("MemTotal:\n")); found {
		t.Error("a line without a number was taken")
	}
}

func TestMajorOfACharacterDevice(t *testing.T) {
	devices := []byte("Character devices:\n  1 mem\n195 nvidia\n511 nvidia-uvm\n\nBlock devices:\n259 nvidia-block\n")
	for driver, want := range map[string]uint32{"nvidia-uvm": 511, "nvidia": 195, "nvidia-block": 0, "none": 0} {
		if got := majorIn(devices, driver); got != want {
			t.Errorf("%s has major %d, want %d", driver, got, want)
		}
	}
}
