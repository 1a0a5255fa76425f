package oci

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation"
)

var update = flag.Bool("update", false, "write golden files")

func testInput() Input {
	lease := isolation.Lease{
		UID: "abcd2345", Tenant: "acme", Name: "train-1", IDs: isolation.IDRange{Start: 1_879_048_192, Size: 65_536},
		Limits: isolation.Limits{CPU: 2500, Memory: 1 << 30, Pids: 64, Shm: 16 << 30, CPUSet: "0-15"},
		GPUs:   []isolation.Device{{UUID: "GPU-a", Minor: 0}, {UUID: "GPU-b", Minor: 3}},
	}
	return Input{
		Lease: lease,
		Paths: isolation.Paths{
			Nodes: "/run/gpuhost/nodes", Etc: "/var/lib/gpuhost/etc", DriverTree: "/var/lib/gpuhost/driver/acme",
			CgroupRoot: "/gpuhost-1f2e", CgroupMount: "/sys/fs/cgroup",
		},
		Image:       imagespec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"serve"}, Env: []string{"PATH=/opt/bin:/bin", "LANG=C"}, WorkingDir: "/srv"},
		Env:         map[string]string{"TOKEN": "secret"},
		Nodes:       isolation.Grant(lease, 511),
		Controllers: []string{"cpu", "cpuset", "memory", "pids"},
		CPUs:        2, Files: 1 << 20, LockedMemory: 1 << 40,
	}
}

func golden(t *testing.T, name string, got any) {
	t.Helper()
	text, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func build(t *testing.T, in Input) *specs.Spec {
	t.Helper()
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGolden(t *testing.T) {
	golden(t, "gpus.json", build(t, testInput()))
	plain := testInput()
	plain.Lease.GPUs, plain.Nodes, plain.Controllers, plain.Paths.DriverTree = nil, nil, []string{"hugetlb"}, ""
	golden(t, "plain.json", build(t, plain))
}

// TestHostileImages: what an image says is either harmless or refused.
func TestHostileImages(t *testing.T) {
	for _, tt := range []struct {
		name   string
		image  imagespec.ImageConfig
		refuse string // part of the why, or empty
		check  func(*specs.Spec) bool
	}{
		{"no program", imagespec.ImageConfig{}, "names no program", nil},
		{"empty program", imagespec.ImageConfig{Cmd: []string{""}}, "names no program", nil},
		{"NUL in argument", imagespec.ImageConfig{Cmd: []string{"a\x00b"}}, "NUL", nil},
		{"CVE-2024-21626", imagespec.ImageConfig{Cmd: []string{"a"}, WorkingDir: "/proc/self/fd/7"}, "below /proc", nil},
		{"unclean working folder", imagespec.ImageConfig{Cmd: []string{"a"}, WorkingDir: "/srv/../proc/self/fd/7"}, "clean", nil},
		{"relative working folder", imagespec.ImageConfig{Cmd: []string{"a"}, WorkingDir: "srv"}, "absolute", nil},
		{"double slash", imagespec.ImageConfig{Cmd: []string{"a"}, WorkingDir: "//proc/self"}, "clean", nil},
		{"working folder /dev", imagespec.ImageConfig{Cmd: []string{"a"}, WorkingDir: "/dev"}, "below /dev", nil},
		{"NUL in environment", imagespec.ImageConfig{Cmd: []string{"a"}, Env: []string{"A=\x00"}}, "NUL", nil},
		{"nameless variable", imagespec.ImageConfig{Cmd: []string{"a"}, Env: []string{"=x"}}, "name and value", nil},
		{"huge environment", imagespec.ImageConfig{Cmd: []string{"a"}, Env: []string{"A=" + strings.Repeat("x", maxArgs)}}, "more than", nil},
		{"all devices", imagespec.ImageConfig{Cmd: []string{"a"}, Env: []string{"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all"}}, "", func(s *specs.Spec) bool {
			return strings.Contains(strings.Join(s.Process.Env, " "), "NVIDIA_VISIBLE_DEVICES=void") &&
				!strings.Contains(strings.Join(s.Process.Env, " "), "=all")
		}},
		{"VOLUME /../../etc (CVE-2022-23648)", imagespec.ImageConfig{Cmd: []string{"a"}, Volumes: map[string]struct{}{"/../../etc": {}}}, "", func(s *specs.Spec) bool {
			return len(s.Mounts) == len(mounts(testInput()))
		}},
		{"LABEL (CVE-2026-53488)", imagespec.ImageConfig{Cmd: []string{"a"}, Labels: map[string]string{"containerd.io/restart.status": "running"}}, "", func(s *specs.Spec) bool {
			return len(s.Annotations) == 0
		}},
		{"LD_PRELOAD is the tenant's own business", imagespec.ImageConfig{Cmd: []string{"a"}, Env: []string{"LD_PRELOAD=/evil.so"}}, "", func(s *specs.Spec) bool {
			return s.Hooks == nil
		}},
		{"USER is not read here", imagespec.ImageConfig{Cmd: []string{"a"}, User: "99999999999"}, "", func(s *specs.Spec) bool { return s.Process.User.UID == 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := testInput()
			in.Image = tt.image
			s, err := Build(in)
			if tt.refuse == "" {
				if err != nil || !tt.check(s) {
					t.Errorf("error %v, process %+v", err, s)
				}
				return
			}
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.refuse) {
				t.Errorf("error %v, want one about %q", err, tt.refuse)
			}
		})
	}
}

func TestLeaseWithoutARangeIsRefused(t *testing.T) {
	for _, ids := range []isolation.IDRange{{}, {Start: 0, Size: 65_536}, {Start: 1_879_048_192, Size: 1}} {
		in := testInput()
		in.Lease.IDs = ids
		if _, err := Build(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("range %+v: %v", ids, err)
		}
	}
}

func TestSeccompProfile(t *testing.T) {
	profile := build(t, testInput()).Linux.Seccomp
	allowed := make(map[string]bool)
	for _, rule := range profile.Syscalls {
		for _, name := range rule.Names {
			if rule.Action == specs.ActAllow {
				allowed[name] = true
			}
		}
	}
	for _, name := range []string{
		"io_uring_setup", "userfaultfd", "bpf", "keyctl", "add_key", "request_key", "perf_event_open", "mount", "umount2", "fsopen",
		"open_tree", "move_mount", "unshare", "setns", "open_by_handle_at", "process_vm_readv", "process_vm_writev", "clone3",
		"init_module", "finit_module", "kexec_load", "swapon", "reboot", "iopl", "socketcall", "modify_ldt", "personality_unbounded",
	} {
		if allowed[name] {
			t.Errorf("%s is allowed", name)
		}
	}
	for _, name := range []string{"execve", "openat", "clone", "socket", "chroot", "ptrace", "futex"} {
		if !allowed[name] {
			t.Errorf("%s is refused", name)
		}
	}
	if diff := cmp.Diff([]specs.Arch{specs.ArchX86_64}, profile.Architectures); diff != "" && len(profile.Architectures) != 1 {
		t.Error(diff)
	}
}

// Each variable is there once, whoever set it.
func TestEnvironmentHasNoDoubles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := testInput()
		name := rapid.SampledFrom([]string{"PATH", "LD_LIBRARY_PATH", "A", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_X"})
		in.Image.Env = nil
		for _, n := range rapid.SliceOf(name).Draw(t, "image") {
			in.Image.Env = append(in.Image.Env, n+"=image")
		}
		in.Env = rapid.MapOf(name, rapid.Just("lease")).Draw(t, "lease")
		env, err := environment(in)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for _, entry := range env {
			key, value, _ := strings.Cut(entry, "=")
			if seen[key] {
				t.Fatalf("%s is there twice", key)
			}
			seen[key] = true
			if key == "NVIDIA_VISIBLE_DEVICES" && value != "void" {
				t.Fatalf("%s", entry)
			}
			if (key == "PATH" || key == "LD_LIBRARY_PATH") && !strings.HasPrefix(value, driverTarget) {
				t.Fatalf("%s", entry)
			}
		}
	})
}

const passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbig:x:70000:0::/:\nneg:x:-1:0::/:\nshort:x\n"

func testAccounts(file string) ([]byte, error) {
	switch file {
	case "passwd":
		return []byte(passwd), nil
	case "group":
		return []byte("staff:x:50:\nhuge:x:99999999999:\n"), nil
	}
	return nil, errors.New("no such file")
}

func TestResolveUser(t *testing.T) {
	for _, tt := range []struct {
		user   string
		want   isolation.User
		refuse bool
	}{
		{user: "", want: isolation.User{}},
		{user: "1000", want: isolation.User{UID: 1000}},
		{user: "1000:50", want: isolation.User{UID: 1000, GID: 50}},
		{user: "65535:65535", want: isolation.User{UID: 65535, GID: 65535}},
		{user: "app", want: isolation.User{UID: 1000, GID: 1001}},
		{user: "app:staff", want: isolation.User{UID: 1000, GID: 50}},
		{user: "1000:staff", want: isolation.User{UID: 1000, GID: 50}},
		{user: "65536", refuse: true},
		{user: "99999999999", refuse: true}, // CVE-2024-40635
		{user: "4294967296", refuse: true},
		{user: "-1", refuse: true},
		{user: "app:huge", refuse: true},
		{user: "1000:", refuse: true},
		{user: ":5", refuse: true},
		{user: "nobody", refuse: true},
		{user: "big", refuse: true},
		{user: "neg", refuse: true},
		{user: "short", refuse: true},
		{user: "root\nx", refuse: true},
		{user: "../../etc/passwd", refuse: true},
	} {
		got, err := ResolveUser(tt.user, testAccounts)
		if tt.refuse != fault.Is(err, fault.Invalid) || got != tt.want && !tt.refuse {
			t.Errorf("user %q: %+v, %v", tt.user, got, err)
		}
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app:staff", passwd)
	f.Add("99999999999", "")
	f.Add("a", "a:::::\x00")
	f.Fuzz(func(t *testing.T, user, file string) {
		got, err := ResolveUser(user, func(string) ([]byte, error) { return []byte(file), nil })
		if err == nil && (got.UID > maxID || got.GID > maxID) {
			t.Errorf("user %q became %+v", user, got)
		}
	})
}
