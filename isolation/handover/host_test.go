package handover

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

// fullNode makes a node of /dev/full's number under another name: a device with a
// driver behind it, which nothing else on the machine has open.
func fullNode(t testing.TB) string {
	t.Helper()
	hosttest.Need(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	node := filepath.Join(dir, "renamed")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7))); err != nil {
		t.Fatal(err)
	}
	return node
}

func holdersOfFull(t testing.TB) []Holder {
	t.Helper()
	holders, err := Holders(t.Context(), 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	return holders
}

func TestHolderByDescriptorIsNamed(t *testing.T) {
	node := fullNode(t)
	if got := holdersOfFull(t); len(got) != 0 {
		t.Fatalf("holders before: %+v", got)
	}
	file, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// Passed on: the heir holds it under another descriptor, and never opened it.
	heir := exec.Command("sleep", "60")
	heir.ExtraFiles = []*os.File{file}
	if err := heir.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = heir.Process.Kill(); _ = heir.Wait() })
	got := map[int]string{}
	for _, h := range holdersOfFull(t) {
		got[h.PID] = h.Command
	}
	comm, _ := os.ReadFile("/proc/self/comm")
	want := map[int]string{os.Getpid(): strings.TrimSpace(string(comm)), heir.Process.Pid: "sleep"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestHolderByMappingAlone(t *testing.T) {
	node := fullNode(t)
	fd, err := unix.Open(node, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	unix.Close(fd)
	if err != nil {
		t.Skipf("no device of this machine can be mapped and stays a device: %v", err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	if got := holdersOfFull(t); len(got) != 1 || got[0].PID != os.Getpid() {
		t.Errorf("holders = %+v", got)
	}
}

func TestNobodyHoldsAnAbsentDevice(t *testing.T) {
	hosttest.Need(t)
	holders, err := Holders(t.Context(), 195, 7)
	if err != nil || len(holders) != 0 {
		t.Errorf("Holders = %+v, %v", holders, err)
	}
}

func TestScanEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Holders(ctx, 195, 0); err == nil {
		t.Error("Holders passed although nobody waits")
	}
}

func FuzzMappings(f *testing.F) {
	f.Add("00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon\n")
	f.Add("7ffc1-7ffc2 rw-p 0 00:00 0 [stack]\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range mappings(text) {
			if strings.ContainsAny(m.span, " \n") || m.file == "" {
				t.Errorf("mapping %+v", m)
			}
		}
	})
}

func TestMappings(t *testing.T) {
	text, err := os.ReadFile("testdata/maps")
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{
		{"400000-452000", "08:02 173521 /usr/bin/dbus-daemon"},
		{"7f2c00000000-7f2c00001000", "00:05 71 /dev/nvidia 0 (deleted)"},
		{"0-1000", "00:05 72 /a"},
	}
	if diff := cmp.Diff(want, mappings(string(text)), cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkHolders(b *testing.B) {
	hosttest.Need(b)
	for range 200 {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	pids, err := numbers("/proc")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Holders(b.Context(), 195, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(pids)), "µs/process")
}
