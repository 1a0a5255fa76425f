package audit

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/cgroup"
	"github.com/gpuhost/gpuhost/isolation/oci"
	"github.com/gpuhost/gpuhost/isolation/warden/canary"
)

// program is an attached program made from rules, as the kernel would show it.
func program(t testing.TB, id uint32, rules []cgroup.Rule) cgroup.Attached {
	t.Helper()
	insns, err := cgroup.Assemble(rules)
	if err != nil {
		t.Fatal(err)
	}
	var code bytes.Buffer
	if err := insns.Marshal(&code, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	// The tag of kernels before 6.18; later ones take another hash, and both are known.
	hash := sha1.Sum(code.Bytes())
	return cgroup.Attached{ID: id, Tag: hex.EncodeToString(hash[:8]), Insns: insns}
}

// healthy is a task as it should be: what a kernel says of one, with the texts of
// testdata.
func healthy(t testing.TB) (Want, Facts) {
	t.Helper()
	lease := newLease(1, 0)
	want := Want{
		Lease: lease, Nodes: isolation.Grant(lease, uvmMajor),
		Controllers: Fact[[]string]{Value: []string{"cpu", "cpuset", "memory", "pids"}}, PageSize: 4096,
	}
	process, err := parseStatus(fixture(t, "status"))
	if err != nil {
		t.Fatal(err)
	}
	process.TID, process.Leads, process.Namespaces = 4711, true, namespaces("task")
	mounts, err := parseMounts(strings.NewReader(fixture(t, "mountinfo")))
	if err != nil {
		t.Fatal(err)
	}
	idMap, err := parseIDMap(fixture(t, "uid_map"))
	if err != nil {
		t.Fatal(err)
	}
	outer := program(t, 7, cgroup.Rules(want.Nodes))
	f := Facts{
		TID:       4711,
		Host:      Fact[Namespaces]{Value: namespaces("host")},
		Peers:     Fact[map[spec.UID]Namespaces]{Value: map[spec.UID]Namespaces{"auditaac": namespaces("peer")}},
		Threads:   Fact[[]Thread]{Value: []Thread{process}},
		NetOwner:  Fact[string]{Value: "task-user"},
		UIDMap:    Fact[string]{Value: idMap},
		GIDMap:    Fact[string]{Value: idMap},
		RootOwner: Fact[uint32]{Value: lease.IDs.Start},
		Mounts:    Fact[[]Mount]{Value: mounts},
		Devices:   Fact[[]Device]{Value: devices(want)},
		Outer:     Fact[[]cgroup.Attached]{Value: []cgroup.Attached{outer}},
		Effective: Fact[[]cgroup.Attached]{Value: []cgroup.Attached{program(t, 8, append(cgroup.Rules(want.Nodes), cgroup.Rule{Major: 10, Minor: 200})), outer}},
		Tries: Fact[canary.Answer]{Value: canary.Answer{
			Root: []canary.Result{
				{Path: "/n/.bait/nvidia1", Major: 195, Minor: 1, Errno: syscall.EPERM},
				{Path: "/n/a/nvidia0", Major: 195, Minor: 0, Errno: syscall.ENXIO},
			},
			Tenant: []canary.Result{{Path: "/n/b/nvidia2", Major: 195, Minor: 2, Errno: syscall.EACCES}},
		}},
		Masked:   Fact[[]Hidden]{Value: all(append(driverPaths(), kernelPaths()...), StateMasked)},
		ReadOnly: Fact[[]Hidden]{Value: all(readOnlyPaths(), StateReadOnly)},
		Shm:      Fact[FileSystem]{Value: FileSystem{Tmpfs: true, Bytes: 32 << 20, Options: []string{"nodev", "noexec", "nosuid"}, OwnRoot: true}},
		Limits:   map[string]Fact[string]{},
	}
	for _, l := range limits(lease.Limits, int64(want.PageSize)) {
		f.Limits[l.file] = Fact[string]{Value: l.value + "\n"}
	}
	return want, f
}

func fixture(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func namespaces(whose string) Namespaces {
	ns := Namespaces{}
	for _, kind := range namespaceKinds() {
		ns[kind] = whose + "-" + kind
	}
	return ns
}

func devices(want Want) []Device {
	list := []Device{{Path: "/dev/null", Major: 1, Minor: 3, Mode: 0o666}, {Path: "/dev/pts/0", Major: 136, Minor: 0, Mode: 0o620}}
	for _, n := range want.Nodes {
		list = append(list, Device{Path: "/dev/" + n.Name, Major: n.Major, Minor: n.Minor, UID: want.Lease.IDs.Start, GID: want.Lease.IDs.Start, Mode: 0o600})
	}
	return list
}

func all(paths []string, state string) (list []Hidden) {
	for _, p := range paths {
		list = append(list, Hidden{Path: p, State: state})
	}
	return list
}

func TestHealthyTaskText(t *testing.T) {
	got := text(Judge(healthy(t)))
	file := filepath.Join("testdata", "healthy.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(fixture(t, "healthy.txt"), got); diff != "" {
		t.Error(diff)
	}
}

func TestEachFaultFailsItsControl(t *testing.T) {
	process := func(edit func(*Thread)) func(*Want, *Facts) {
		return func(_ *Want, f *Facts) { edit(&f.Threads.Value[0]) }
	}
	second := func(edit func(*Thread)) func(*Want, *Facts) {
		return func(_ *Want, f *Facts) {
			t := f.Threads.Value[0]
			t.TID, t.Leads, t.Namespaces = t.TID+1, false, maps.Clone(t.Namespaces)
			edit(&t)
			f.Threads.Value = append(f.Threads.Value, t)
		}
	}
	mount := func(m Mount) func(*Want, *Facts) {
		return func(_ *Want, f *Facts) { f.Mounts.Value = append(f.Mounts.Value, m) }
	}
	for _, row := range []struct {
		name  string
		spoil func(*Want, *Facts)
		want  []string
	}{
		{"whole uid range", func(_ *Want, f *Facts) { f.UIDMap.Value = "0 0 4294967295" }, []string{"I1"}},
		{"two gid ranges", func(_ *Want, f *Facts) { f.GIDMap.Value += "; 65536 0 1" }, []string{"I1"}},
		{"root of the host's", func(_ *Want, f *Facts) { f.RootOwner.Value = 0 }, []string{"I1"}},
		{"host's net", process(func(p *Thread) { p.Namespaces["net"] = "host-net" }), []string{"I2"}},
		{"neighbour's ipc", process(func(p *Thread) { p.Namespaces["ipc"] = "peer-ipc" }), []string{"I2"}},
		{"net owned by the host", func(_ *Want, f *Facts) { f.NetOwner.Value = "host-user" }, []string{"I2"}},
		{"host's net in a second thread", second(func(t *Thread) { t.Namespaces["net"] = "host-net" }), []string{"I2"}},
		{"runc's thread beside the task's", second(func(t *Thread) { t.Seccomp, t.NoNewPrivs = "0", "0" }), nil},
		{"init gone", process(func(p *Thread) { p.TID = 1 }), []string{"I2"}},
		{"SYS_ADMIN", process(func(p *Thread) { p.Caps["CapBnd"] |= 1 << 21 }), []string{"I3"}},
		{"ambient NET_RAW", process(func(p *Thread) { p.Caps["CapAmb"] |= 1 << 13 }), []string{"I3"}},
		{"new privileges", process(func(p *Thread) { p.NoNewPrivs = "0" }), []string{"I4"}},
		{"no process", func(_ *Want, f *Facts) { f.Threads.Value = nil }, []string{"I2", "I3", "I4", "K1"}},
		{"no inner program", func(_ *Want, f *Facts) { f.Effective.Value = f.Outer.Value }, []string{"D1"}},
		{"no outer program", func(_ *Want, f *Facts) { f.Outer.Value = nil }, []string{"D1", "D2"}},
		{"outer not asked", func(_ *Want, f *Facts) { f.Effective.Value = f.Effective.Value[:1] }, []string{"D2"}},
		{"forbidden node opened", func(_ *Want, f *Facts) { f.Tries.Value.Root[0].Errno = 0 }, []string{"D3"}},
		{"forbidden node reached the driver", func(_ *Want, f *Facts) { f.Tries.Value.Root[0].Errno = syscall.ENXIO }, []string{"D3"}},
		{"granted node refused", func(_ *Want, f *Facts) { f.Tries.Value.Root[1].Errno = syscall.EPERM }, []string{"D3"}},
		{"another device in the place of a granted one", func(_ *Want, f *Facts) { f.Tries.Value.Root[1].Errno = syscall.ENODEV }, []string{"D3"}},
		{"neighbour's node opened", func(_ *Want, f *Facts) { f.Tries.Value.Tenant[0].Errno = syscall.ENXIO }, []string{"D3"}},
		{"nothing tried", func(_ *Want, f *Facts) { f.Tries.Value = canary.Answer{} }, []string{"D3"}},
		{"node missing", func(_ *Want, f *Facts) { f.Devices.Value = f.Devices.Value[:3] }, []string{"D4"}},
		{"node's number", func(_ *Want, f *Facts) { f.Devices.Value[2].Minor = 9 }, []string{"D4", "D5"}},
		{"node as block device", func(_ *Want, f *Facts) { f.Devices.Value[2].Block = true }, []string{"D4", "D5"}},
		{"modeset", func(_ *Want, f *Facts) {
			f.Devices.Value = append(f.Devices.Value, Device{Path: "/dev/nvidia-modeset", Major: 195, Minor: 254})
		}, []string{"D5"}},
		{"null is memory", func(_ *Want, f *Facts) { f.Devices.Value[0].Minor = 1 }, []string{"D5"}},
		{"persistenced's socket", mount(Mount{Point: "/run/x", Root: "/nvidia-persistenced/socket", Options: []string{"nodev", "nosuid"}}), []string{"D6"}},
		{"fabricmanager's socket", mount(Mount{Point: "/run/x", Root: "/nvidia-fabricmanager/socket", Options: []string{"nodev", "nosuid"}}), []string{"D6"}},
		{"folder of MPS", mount(Mount{Point: "/tmp/x", Root: "/nvidia-mps", Options: []string{"nodev", "nosuid"}}), []string{"D6"}},
		{"any daemon's socket", mount(Mount{Point: "/run/x", Root: "/docker.sock", Options: []string{"nodev", "nosuid"}}), []string{"D6"}},
		{"driver's registry", func(_ *Want, f *Facts) { f.Masked.Value[2].State = StateVisible }, []string{"D7"}},
		{"not looked at", func(_ *Want, f *Facts) { f.Masked.Value = f.Masked.Value[1:] }, []string{"D7"}},
		{"shm of the host", func(_ *Want, f *Facts) { f.Shm.Value.OwnRoot = false }, []string{"D10"}},
		{"shm too large", func(_ *Want, f *Facts) { f.Shm.Value.Bytes *= 2 }, []string{"D10"}},
		{"no seccomp", process(func(p *Thread) { p.Seccomp = "0" }), []string{"K1"}},
		{"read-only is no mask", func(_ *Want, f *Facts) { f.Masked.Value[len(driverPaths())].State = StateReadOnly }, []string{"K4"}},
		{"/proc/sys writable", func(_ *Want, f *Facts) { f.ReadOnly.Value[3].State = StateVisible }, []string{"K4"}},
		{"suid mount", mount(Mount{Point: "/data", Type: "ext4", Options: []string{"nodev", "rw"}}), []string{"K5"}},
		{"tmpfs with devices", mount(Mount{Point: "/tmp", Type: "tmpfs", Options: []string{"nosuid", "rw"}}), []string{"K5"}},
		{"null over a file of the image", mount(Mount{Point: "/etc/x", Root: "/null", Type: "devtmpfs", Options: []string{"rw"}}), []string{"K5"}},
		{"another device as null", mount(Mount{Point: "/dev/null", Root: "/mem", Type: "devtmpfs", Options: []string{"rw"}}), []string{"K5"}},
		{"no mounts seen", func(_ *Want, f *Facts) { f.Mounts.Value = nil }, []string{"K5"}},
		{"memory unlimited", func(_ *Want, f *Facts) { f.Limits["memory.max"] = Fact[string]{Value: "max\n"} }, []string{"R1"}},
		{"limit missing", func(_ *Want, f *Facts) { delete(f.Limits, "pids.max") }, []string{"R1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			want, f := healthy(t)
			row.spoil(&want, &f)
			controls := Judge(want, f)
			if diff := cmp.Diff(row.want, failed(controls)); diff != "" {
				t.Errorf("failed controls (-want +got):\n%s\n%s", diff, text(controls))
			}
		})
	}
}

// What cannot be read has failed, each fact for the controls that need it.
func TestUnreadableFails(t *testing.T) {
	lost := errors.New("permission denied")
	for _, row := range []struct {
		name  string
		spoil func(*Facts)
		want  []string
	}{
		{"processes", func(f *Facts) { f.Threads.Err = lost }, []string{"I2", "I3", "I4", "K1"}},
		{"uid map", func(f *Facts) { f.UIDMap.Err = lost }, []string{"I1"}},
		{"effective programs", func(f *Facts) { f.Effective.Err = lost }, []string{"D1", "D2"}},
		{"canary", func(f *Facts) { f.Tries.Err = lost }, []string{"D3"}},
		{"devices", func(f *Facts) { f.Devices.Err = lost }, []string{"D4", "D5"}},
		{"mounts", func(f *Facts) { f.Mounts.Err = lost }, []string{"D6", "K5"}},
		{"masked paths", func(f *Facts) { f.Masked.Err = lost }, []string{"D7", "K4"}},
		{"read-only paths", func(f *Facts) { f.ReadOnly.Err = lost }, []string{"K4"}},
		{"shm", func(f *Facts) { f.Shm.Err = lost }, []string{"D10"}},
		{"a limit", func(f *Facts) { f.Limits["pids.max"] = Fact[string]{Err: lost} }, []string{"R1"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			want, f := healthy(t)
			row.spoil(&f)
			if diff := cmp.Diff(row.want, failed(Judge(want, f))); diff != "" {
				t.Error(diff)
			}
		})
	}
	if ids := failed(Judge(Want{PageSize: 4096}, Facts{})); len(ids) < 12 {
		t.Errorf("of a task of which nothing is known only %v fail", ids)
	}
}

// Where a page has 64 KiB the kernel rounds /dev/shm up and memory.max down to that.
func TestLargePages(t *testing.T) {
	want, f := healthy(t)
	want.PageSize = 64 << 10
	want.Lease.Limits.Shm, want.Lease.Limits.Memory = 1<<20+4096, 1<<30+4096
	f.Shm.Value.Bytes = 1<<20 + 64<<10
	f.Limits["memory.max"] = Fact[string]{Value: "1073741824\n"}
	if controls := Judge(want, f); len(failed(controls)) > 0 {
		t.Errorf("failed %v:\n%s", failed(controls), text(controls))
	}
}

func TestMissingControllerIsSaidNotFailed(t *testing.T) {
	want, f := healthy(t)
	want.Controllers.Value = []string{"pids"}
	controls := Judge(want, f)
	i := slices.IndexFunc(controls, func(c spec.Control) bool { return c.ID == "R1" })
	if !controls[i].Pass || !strings.Contains(controls[i].Found, "no memory controller") {
		t.Errorf("R1 = %+v", controls[i])
	}
}

// A tenant's own texts reach the operator's terminal: short, on one line and tame.
func TestFindingsAreTame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		problems := rapid.SliceOfN(rapid.String(), 1, 50).Draw(t, "problems")
		got := conclude("", "", problems)
		if got.pass || strings.ContainsAny(got.found, "\n\x1b\x00\x7f") || strings.Count(got.found, "; ") > strings.Count(strings.Join(problems, ""), "; ")+5 {
			t.Fatalf("found %q", got.found)
		}
	})
}

// The builder's lists and the audit's are written down twice; here they must agree.
func TestListsAgreeWithTheBuilder(t *testing.T) {
	lease := newLease(1, 0)
	s, err := oci.Build(oci.Input{
		Lease: lease, Paths: isolation.Paths{CgroupRoot: "/gpuhost-x"}, Image: imagespec.ImageConfig{},
		Nodes: isolation.Grant(lease, uvmMajor), CPUs: 2, Files: 1024, LockedMemory: 1 << 16,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(driverPaths(), kernelPaths()...) {
		if !slices.Contains(s.Linux.MaskedPaths, p) {
			t.Errorf("%s is audited as masked and not built so", p)
		}
	}
	var built []string
	for _, name := range s.Process.Capabilities.Bounding {
		built = append(built, strings.TrimPrefix(name, "CAP_"))
	}
	var audited []string
	for _, c := range permittedCaps() {
		audited = append(audited, c.name)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(audited)), slices.Sorted(slices.Values(built))); diff != "" {
		t.Error(diff)
	}
	if bit := permittedMask() & (1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW); bit != 0 {
		t.Errorf("permitted mask has %#x", bit)
	}
	if len(s.Linux.Namespaces) != len(namespaceKinds()) {
		t.Errorf("built %v, audited %v", s.Linux.Namespaces, namespaceKinds())
	}
}

func TestBaitNeverRepeatsANumberOfTheStandardSet(t *testing.T) {
	standard := slices.Collect(maps.Values(standardDevices()))
	for name, n := range bait(uvmMajor) {
		if slices.Contains(standard, n) {
			t.Errorf("bait %s is a standard device", name)
		}
	}
}
