package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gpuhost/gpuhost/agent/sim"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/cgroup"
)

// TestTamperedInstanceIsFenced breaks a control of a running tenant from outside:
// the audit finds it by itself, and the instance opens no device any more until
// the operator has it started anew. Its neighbour goes on.
func TestTamperedInstanceIsFenced(t *testing.T) {
	h := newHost(t)
	text, err := os.ReadFile(h.settings)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, h.settings, string(text)+"[audit]\ninterval = \"5s\"\n")
	h.mustStart()
	endless := []string{"sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"}
	h.run("acme", "neighbour", []string{"--gpus", "1"}, endless...)
	for _, tt := range []struct {
		name   string
		tamper func(t *testing.T, h *host, uid string)
	}{
		{"program", widenProgram},
		{"node", openNode},
		{"process", bringProcess},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := h.of(t)
			h.run("acme", tt.name, []string{"--gpus", "1"}, endless...)
			uid := h.uid("acme/" + tt.name)
			tt.tamper(t, h, uid)
			eventually(t, func() error { return inPhase(h.instance("acme/"+tt.name), spec.PhaseFenced) })
			if err := h.checkProgram(uid, nil); err != nil {
				t.Error(err)
			}
			if err := inPhase(h.instance("acme/neighbour"), spec.PhaseRunning); err != nil {
				t.Error(err)
			}
			h.expect(0, "restart", "--yes", "--tenant", "acme", tt.name)
			eventually(t, func() error { return inPhase(h.instance("acme/"+tt.name), spec.PhaseRunning) })
			h.expect(0, "audit", "--tenant", "acme", tt.name)
			h.expect(0, "rm", "--yes", "acme/"+tt.name)
		})
	}
	h.expect(0, "rm", "--yes", "acme/neighbour")
}

// widenProgram replaces the outer device program by one for every GPU.
func widenProgram(t *testing.T, h *host, uid string) {
	paths := isolation.Paths{CgroupRoot: "/gpuhost-" + h.id, CgroupMount: "/sys/fs/cgroup"}
	tree, err := cgroup.New(paths, func() uint32 { return sim.MajorUVM })
	if err != nil {
		t.Fatal(err)
	}
	lease := isolation.Lease{UID: spec.UID(uid)}
	for minor := range uint32(8) {
		lease.GPUs = append(lease.GPUs, isolation.Device{Minor: minor})
	}
	if err := tree.Make(context.Background(), lease); err != nil {
		t.Fatal(err)
	}
}

// openNode lets everybody open the instance's nodes.
func openNode(t *testing.T, h *host, uid string) {
	nodes, err := filepath.Glob(filepath.Join(h.root, "run", "nodes", uid, "nvidia*"))
	if err != nil || len(nodes) == 0 {
		t.Fatalf("no nodes: %v", err)
	}
	for _, node := range nodes {
		if err := os.Chmod(node, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// bringProcess puts a process of the host into the task's cgroup.
func bringProcess(t *testing.T, h *host, uid string) {
	dir, err := os.Open(fmt.Sprintf("/sys/fs/cgroup/gpuhost-%s/%s/task", h.id, uid))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "100000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // the fence or the restart may have ended it
}
