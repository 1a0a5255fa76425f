package nfpm_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// script makes a maintainer script as build.sh does, with the host below root: its
// state, and stand-ins for the programs it calls, which write down how.
func script(t *testing.T, name, root string) string {
	t.Helper()
	var text []byte
	for _, part := range []string{"lib.sh", name} {
		read, err := os.ReadFile(filepath.Join("scripts", part))
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, read...)
	}
	filled := strings.NewReplacer("@SCHEMA@", "3", "@VERSION@", "1.2.3", "/var/lib/gpuhost", root+"/var/lib/gpuhost",
		"/run/systemd/system", root+"/run/systemd/system", "/usr/lib/systemd/systemd-sysctl", "systemd-sysctl").Replace(string(text))
	path := filepath.Join(root, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\nset -e\n"+filled), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// host is a booted machine with stand-ins; answers are shell code by program.
func host(t *testing.T, answers map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"var/lib/gpuhost", "run/systemd/system", "bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range []string{"systemctl", "systemd-sysusers", "systemd-tmpfiles", "systemd-sysctl", "deb-systemd-helper", "deb-systemd-invoke", "gpuhost"} {
		text := "#!/bin/sh\necho " + program + ` "$@" >>` + root + "/calls\n" + answers[program] + "\n"
		if err := os.WriteFile(filepath.Join(root, "bin", program), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// run runs a script and says what it called, what it told, and whether it succeeded.
func run(t *testing.T, root, name string, args ...string) (calls, told string, ok bool) {
	t.Helper()
	cmd := exec.Command(script(t, name, root), args...)
	cmd.Env = []string{"PATH=" + filepath.Join(root, "bin") + ":/usr/sbin:/usr/bin:/sbin:/bin"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	text, readErr := os.ReadFile(filepath.Join(root, "calls"))
	if readErr != nil && !os.IsNotExist(readErr) {
		t.Fatal(readErr)
	}
	return string(text), stderr.String(), err == nil
}

// TestDowngrade: refused in deb and rpm before anything is stopped, where the state
// needs a newer reader, and only there.
func TestDowngrade(t *testing.T) {
	for note, refused := range map[string]bool{
		"": false, "schema=3\nminReader=3\n": false, "schema=4\nminReader=3\n": false, "schema=5\nminReader=4\n": true, "minReader=12\n": true, "minReader=x\n": false,
	} {
		for name, args := range map[string][]string{"gpuhost.preinst": {"upgrade", "2.0.0-1"}, "gpuhost.pre": {"2"}} {
			root := host(t, nil)
			if note != "" {
				if err := os.WriteFile(filepath.Join(root, "var/lib/gpuhost/state.db.version"), []byte(note), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			calls, told, ok := run(t, root, name, args...)
			if ok == refused || calls != "" {
				t.Errorf("%s with %q: succeeds %v, called %q", name, note, ok, calls)
			}
			if refused && (!strings.Contains(told, "needs a reader of schema") || !strings.Contains(told, "state.db.schema3")) {
				t.Errorf("%s tells no way back: %s", name, told)
			}
		}
	}
}

// TestUpgrade: the agent is restarted where the new program finds the settings sound,
// and nothing else is.
func TestUpgrade(t *testing.T) {
	for name, args := range map[string][]string{"gpuhost.postinst": {"configure", "0.0.9-1"}, "gpuhost.post": {"2"}} {
		calls, told, ok := run(t, host(t, nil), name, args...)
		if !ok || !strings.Contains(calls, "restart gpuhost.service") || !strings.Contains(calls, "gpuhost config check") {
			t.Errorf("%s: %v, %s%s", name, ok, calls, told)
		}
		bad := map[string]string{"gpuhost": "echo 'error: /etc/gpuhost/gpuhost.toml:2:1: unknown setting' >&2; exit 1"}
		calls, told, ok = run(t, host(t, bad), name, args...)
		if !ok || strings.Contains(calls, "restart") {
			t.Errorf("%s with bad settings: %v, %s", name, ok, calls)
		}
		for _, want := range []string{"gpuhost.toml:2:1", "keeps running", "systemctl restart gpuhost"} {
			if !strings.Contains(told, want) {
				t.Errorf("%s with bad settings does not say %q: %s", name, want, told)
			}
		}
		calls, _, ok = run(t, host(t, map[string]string{"systemctl": "[ \"$2\" != is-active ]"}), name, args...)
		if !ok || strings.Contains(calls, "start gpuhost.service") {
			t.Errorf("%s starts an agent that was stopped: %s", name, calls)
		}
	}
}

// TestUpgradesLeaveTenantsAlone: no script of an upgrade, of either package, stops or
// starts what tenants depend on.
func TestUpgradesLeaveTenantsAlone(t *testing.T) {
	touching := regexp.MustCompile(`(?m)^\S+ .*\b(stop|restart|start|try-restart|reload|kill)\b.*gpuhost-(tenants|containerd)`)
	for name, args := range map[string][]string{
		"gpuhost.preinst": {"upgrade", "0.0.9-1"}, "gpuhost.prerm": {"upgrade", "1.2.3-1"}, "gpuhost.postinst": {"configure", "0.0.9-1"}, "gpuhost.postrm": {"upgrade", "1.2.3-1"},
		"gpuhost-runtime.prerm": {"upgrade", "1.2.3-1"}, "gpuhost-runtime.postinst": {"configure", "0.0.9-1"}, "gpuhost-runtime.postrm": {"upgrade", "1.2.3-1"},
		"gpuhost.pre": {"2"}, "gpuhost.post": {"2"}, "gpuhost.preun": {"1"}, "gpuhost.postun": {"1"},
		"gpuhost-runtime.post": {"2"}, "gpuhost-runtime.preun": {"1"}, "gpuhost-runtime.postun": {"1"},
	} {
		calls, told, ok := run(t, host(t, nil), name, args...)
		if found := touching.FindString(calls); !ok || found != "" {
			t.Errorf("%s: %v, %q%s", name, ok, found, told)
		}
	}
}

// TestRemoval ends tenants before the agent's last word, which needs containerd.
func TestRemoval(t *testing.T) {
	const want = "systemctl stop gpuhost.service gpuhost-tenants.service\ngpuhost agent --remove --yes\nsystemctl stop gpuhost-containerd.service gpuhost.slice\n"
	for name, args := range map[string][]string{"gpuhost.prerm": {"remove"}, "gpuhost.preun": {"0"}} {
		if calls, told, ok := run(t, host(t, nil), name, args...); !ok || !strings.HasPrefix(calls, want) {
			t.Errorf("%s: %v\n%s%s", name, ok, calls, told)
		}
	}
}
