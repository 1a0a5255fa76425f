package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

const (
	agent      = "gpuhost.service"
	containerd = "gpuhost-containerd.service"
	tenants    = "gpuhost-tenants.service"
)

// unit reads a unit file as section.key → values in order.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	settings, section := map[string][]string{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		if key, value, found := strings.Cut(line, "="); found && line[0] != '#' {
			settings[section+"."+key] = append(settings[section+"."+key], value)
		}
	}
	return settings
}

func one(t *testing.T, settings map[string][]string, key, want string) {
	t.Helper()
	if got := strings.Join(settings[key], " "); got != want {
		t.Errorf("%s is %q, want %q", key, got, want)
	}
}

// TestNoMountNamespaceOfItsOwn: pins and device nodes are mounts of the agent's that
// containerd must see, so none of these may come in by way of hardening
// (systemd.exec(5), "sandboxing").
func TestNoMountNamespaceOfItsOwn(t *testing.T) {
	private := []string{
		"BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "InaccessiblePaths", "LogNamespace", "MountFlags", "MountImages", "NoExecPaths",
		"PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateTmp", "ProcSubset", "ProtectControlGroups", "ProtectHome",
		"ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
		"ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem", "PrivateUsers", "PrivateNetwork", "NetworkNamespacePath",
	}
	for _, name := range []string{agent, containerd, tenants} {
		for _, key := range private {
			if value, set := unit(t, name)["Service."+key]; set {
				t.Errorf("%s: %s=%s implies a namespace of its own", name, key, value)
			}
		}
	}
}

// TestSystemCallsStayWhole: a filter cannot see the arguments of clone3 and openat2, so
// these options refuse both calls altogether. With the first a warden is born inside
// its cgroup; with the second the audit opens files inside a tenant's root.
func TestSystemCallsStayWhole(t *testing.T) {
	for _, name := range []string{agent, containerd, tenants} {
		for _, key := range []string{"RestrictNamespaces", "RestrictSUIDSGID"} {
			if value, set := unit(t, name)["Service."+key]; set {
				t.Errorf("%s: %s=%s takes clone3 or openat2 away", name, key, value)
			}
		}
	}
}

// TestNothingNewerThan249: an older systemd ignores what it does not know, and an
// unknown Type= silently becomes simple.
func TestNothingNewerThan249(t *testing.T) {
	newer := regexp.MustCompile(`(?m)^(Type=notify-reload|DelegateSubgroup=|FileDescriptorStorePreserve=|RestartSteps=|RestartMaxDelaySec=|RestartMode=|` +
		`RestrictFileSystems=|OpenFile=|MemoryPressureWatch=|ExtensionDirectories=|LogFilterPatterns=|PrivatePIDs=|ProtectHostname=private|` +
		`SurviveFinalKillSignal=|ImportCredential=|StartupCPUWeight=|StartupAllowedCPUs=|ManagedOOMPreference=omit)`)
	for _, name := range []string{agent, containerd, tenants} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := newer.FindString(string(text)); found != "" {
			t.Errorf("%s: %s is newer than systemd 249", name, found)
		}
	}
}

// TestNothingEndsTenants: what each unit promises to those who run on the host.
func TestNothingEndsTenants(t *testing.T) {
	a, c, h := unit(t, agent), unit(t, containerd), unit(t, tenants)
	one(t, a, "Service.Type", "notify")
	one(t, a, "Service.ExecReload", "/usr/bin/gpuhost config reload")
	one(t, c, "Service.KillMode", "process") // the shims stay
	one(t, c, "Service.Delegate", "yes")
	one(t, h, "Service.KillMode", "process") // the holder's end is nobody else's
	one(t, h, "Service.Delegate", "yes")
	one(t, h, "Service.Slice", "gpuhost.slice") // the path is a setting of the package
	for name, u := range map[string]map[string][]string{agent: a, containerd: c, tenants: h} {
		one(t, u, "Service.OOMPolicy", "continue") // one tenant out of memory is not the unit's end
		one(t, u, "Service.Restart", "always")
		one(t, u, "Unit.StartLimitIntervalSec", "0")
		one(t, u, "Unit.RequiresMountsFor", "/var/lib/gpuhost")
		for _, tie := range []string{"BindsTo", "PartOf", "StopPropagatedFrom", "Conflicts", "Upholds"} {
			if value, set := u["Unit."+tie]; set {
				t.Errorf("%s: %s=%s: one unit's end would be another's", name, tie, value)
			}
		}
	}
	for _, u := range []map[string][]string{c, h} {
		if _, set := u["Unit.Requires"]; set {
			t.Error("containerd and the tenants need no other unit to go on")
		}
	}
	if !slices.Contains(strings.Fields(strings.Join(a["Unit.After"], " ")), tenants) {
		t.Error("the agent starts without its tenants' cgroup")
	}
}

// TestTheCgroupIsTheUnits: the setting in the package names the cgroup that systemd
// makes for the unit.
func TestTheCgroupIsTheUnits(t *testing.T) {
	text, err := os.ReadFile("../packaging/nfpm/10-package.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := `cgroup = "/` + strings.Join(unit(t, tenants)["Service.Slice"], "") + "/" + tenants + `"`
	if !strings.Contains(string(text), want) {
		t.Errorf("10-package.toml lacks %s", want)
	}
}

// analyze runs systemd-analyze on a root that has the units and stand-ins for the
// programs they run.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		hosttest.Missing(t, "systemd-analyze is missing: apt-get install systemd")
	}
	output, err := exec.Command(tool, args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return string(output)
}

// standIns copies the units with every program replaced by one that is there.
func standIns(t *testing.T) []string {
	t.Helper()
	program := regexp.MustCompile(`(?m)^(Exec[A-Za-z]+=)/usr/\S+`)
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{agent, containerd, tenants} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, program.ReplaceAll(text, []byte("${1}/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func TestSystemdUnderstandsTheUnits(t *testing.T) {
	output := analyze(t, append([]string{"verify", "--man=no"}, standIns(t)...)...)
	for line := range strings.Lines(output) {
		if strings.Contains(line, "gpuhost") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// exposure is at most what docs/systemd.md explains, in tenths.
const exposure = "74"

func TestExposure(t *testing.T) {
	analyze(t, "security", "--offline=true", "--no-pager", "--threshold="+exposure, standIns(t)[0])
}
