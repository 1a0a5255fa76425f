package agent

import (
	"testing"
	"testing/fstest"
)

// What the machine has is not what this process may run on: an agent that systemd
// pins to the reserved processors gives instances all the others.
func TestCapacityIsTheMachines(t *testing.T) {
	machine := fstest.MapFS{
		"proc/meminfo":                  {Data: []byte("MemTotal:       24683620 kB\n")},
		"sys/devices/system/cpu/online": {Data: []byte("0-95,128-223\n")},
	}
	cpus, memory, err := capacity(machine)
	if err != nil || cpus != 192_000 || memory != 24683620<<10 {
		t.Errorf("the machine has %d and %d (%v), want 192 processors", cpus, memory, err)
	}
	for _, odd := range []string{"", "\n", "none", "3-1", "0-", "0,,1"} {
		machine["sys/devices/system/cpu/online"].Data = []byte(odd)
		if cpus, _, err := capacity(machine); err == nil {
			t.Errorf("%q was read as %d processors", odd, cpus)
		}
	}
}

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
