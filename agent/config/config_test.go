package config

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gpuhost/gpuhost/agent/fault"
)

var update = flag.Bool("update", false, "rewrite testdata")

func compare() cmp.Options {
	return cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmpopts.IgnoreUnexported(Config{})}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDefaultFile keeps the file that packages install equal to the table, and
// the table equal to the defaults.
func TestDefaultFile(t *testing.T) {
	const golden = "testdata/gpuhost.toml"
	if *update {
		write(t, golden, DefaultText())
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), DefaultText()); diff != "" {
		t.Errorf("go test -update ./agent/config: %s", diff)
	}
	c := &Config{origins: map[string]string{}}
	uncommented := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAllString(DefaultText(), "$1")
	if err := c.parse("default", []byte(uncommented)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), c, compare()); diff != "" {
		t.Error(diff)
	}
	if len(c.origins) != len(table(c)) {
		t.Errorf("%d of %d settings are in the file", len(c.origins), len(table(c)))
	}
	if _, err := c.check(); err != nil {
		t.Error(err)
	}
}

func TestTableIsWhole(t *testing.T) {
	variables := map[string]string{}
	for _, s := range table(Default()) {
		if s.doc == "" || !regexp.MustCompile(`^[a-z]+\.[a-z_]+$`).MatchString(s.key) {
			t.Errorf("%q has no doc or an odd key", s.key)
		}
		if other := variables[s.variable()]; other != "" {
			t.Errorf("%s means %s and %s", s.variable(), other, s.key)
		}
		variables[s.variable()] = s.key
	}
}

func TestLayers(t *testing.T) {
	root := t.TempDir()
	vendor, run, etc := filepath.Join(root, "usr/lib/gpuhost"), PathsBelow(root).Run, PathsBelow(root).Etc
	write(t, vendor+"/gpuhost.toml.d/10-a.toml", "[metrics]\nlisten = \"127.0.0.1:1\"\n[audit]\npolicy = \"report\"\n")
	write(t, vendor+"/gpuhost.toml.d/20-b.toml", "[log]\nlevel = \"debug\"\n")
	write(t, run+"/gpuhost.toml.d/20-b.toml", "# masks the one of the same name\n")
	write(t, etc+"/gpuhost.toml.d/30-c.toml", "[metrics]\nlisten = \"127.0.0.1:2\"\n[network]\nmtu = 1_400\n")
	write(t, etc+"/gpuhost.toml", "telemetry.dcgm = false\nnetwork.protected = [\"10.0.0.0/8\",\n \"192.168.0.0/16\"]\n[tenants.uids]\n1000 = \"acme\"\n1001 = \"beta\"\n")
	c, err := Load(Options{
		Root: root, Environ: []string{"GPUHOST_HOST=unix:///x", "GPUHOST_NETWORK_MTU=1300", "GPUHOST_TELEMETRY_HOSTNAME_LABEL=Hostname", "GPUHOST_IMAGES_LOCAL_REGISTRIES=127.0.0.1:5000", "GPUHOST_NETWORK_UPSTREAM_DNS=9.9.9.9, 1.1.1.1"},
		Flags: map[string]string{"images.disk_high": "95"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Metrics.Listen = "127.0.0.1:2"
	want.Audit.Policy = PolicyReport
	want.Network.MTU = 1300
	want.Network.Protected = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.0/16")}
	want.Network.UpstreamDNS = []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("1.1.1.1")}
	want.Tenants.UIDs = map[string]string{"1000": "acme", "1001": "beta"}
	want.Images.DiskHigh = 95
	want.Telemetry = Telemetry{DCGM: false, HostnameLabel: "Hostname"}
	want.Images.LocalRegistries = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000")}
	if diff := cmp.Diff(want, c, compare()); diff != "" {
		t.Error(diff)
	}
	origins := map[string]string{}
	for _, s := range c.Settings() {
		if s.Origin != "default" {
			origins[s.Key] = strings.TrimPrefix(s.Origin, root+"/")
		}
	}
	wantOrigins := map[string]string{
		"audit.policy":             "usr/lib/gpuhost/gpuhost.toml.d/10-a.toml:4",
		"metrics.listen":           "etc/gpuhost.toml.d/30-c.toml:2",
		"network.protected":        "etc/gpuhost.toml:2",
		"tenants.uids":             "etc/gpuhost.toml:6",
		"telemetry.dcgm":           "etc/gpuhost.toml:1",
		"telemetry.hostname_label": "environment GPUHOST_TELEMETRY_HOSTNAME_LABEL",
		"network.mtu":              "environment GPUHOST_NETWORK_MTU",
		"network.upstream_dns":     "environment GPUHOST_NETWORK_UPSTREAM_DNS",
		"images.local_registries":  "environment GPUHOST_IMAGES_LOCAL_REGISTRIES",
		"images.disk_high":         "flag",
	}
	if diff := cmp.Diff(wantOrigins, origins); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutAnyFile(t *testing.T) {
	c, err := Load(Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), c, compare()); diff != "" {
		t.Error(diff)
	}
	_, err = Load(Options{Root: t.TempDir(), File: "/absent/gpuhost.toml"})
	if !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// TestBadSettings: what a person reads, with file, line, column and nearest name.
func TestBadSettings(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"unknown key", "[metrics]\nlisten = \"\"\nlissten = \"x\"\n",
			`f:3:1: unknown setting "metrics.lissten", the nearest is "metrics.listen"`},
		{"unknown section", "\n[metric]\n", `f:2:2: unknown setting "metric", the nearest is "metrics"`},
		{"wrong section", "[log]\nmtu = 1400\n", `f:2:1: unknown setting "log.mtu", the nearest is "network.mtu"`},
		{"no section", "level = \"info\"\n", `f:1:1: unknown setting "level", the nearest is "log.level"`},
		{"inline, unknown", "log = {level = \"info\", colour = \"red\"}\n", `f:1:24: unknown setting "log.colour"`},
		{"syntax", "[log]\nlevel = info\n", `f:2:12: syntax: expected newline but got U+006F 'o'`},
		{"twice", "[log]\nlevel = \"info\"\nlevel = \"warn\"\n", `f:3:1: syntax: key level is already defined`},
		{"table twice", "[log]\n[log]\n", `f:2:2: syntax: table log already exists`},
		{"list of tables", "[[log]]\n", `f:1:3: [[log]]: settings have no lists of tables`},
		{"number for a text", "[log]\nlevel = 3\n", `f:2:1: log.level: is a number, not a text`},
		{"text for a number", "[network]\nmtu = \"1400\"\n", `f:2:1: network.mtu: is a text, not a number`},
		{"text for a list", "[network]\nprotected = \"10.0.0.0/8\"\n", `f:2:1: network.protected: is a text, not a list`},
		{"list of numbers", "[network]\nprotected = [10]\n", `f:2:1: network.protected: is a list with something other than texts, not a list`},
		{"bool", "[log]\nlevel = true\n", `f:2:1: log.level: is true or false, not a text`},
		{"date", "[log]\nlevel = 2026-11-24\n", `f:2:1: log.level: is a date, not a text`},
		{"text for a bool", "[telemetry]\ndcgm = \"true\"\n", `f:2:1: telemetry.dcgm: is a text, not true or false`},
		{"hostname label", "[telemetry]\nhostname_label = \"host\"\n", `f:2:1: telemetry.hostname_label: "host" is not one of hostname, Hostname`},
		{"choice", "[audit]\npolicy = \"fense\"\n", `f:2:1: audit.policy: "fense" is not one of fence, report; the nearest is fence`},
		{"host bits", "[network]\nprotected = [\"10.0.0.1/8\"]\n", `f:2:1: network.protected: "10.0.0.1/8" has bits beyond its prefix length; the network is 10.0.0.0/8`},
		{"negative", "[network]\nmtu = -1\n", `f:2:1: network.mtu: "-1" is not between 0 and 65535`},
		{"tiny MTU", "[network]\nmtu = 100\n", `f:2:1: network.mtu: "100" is below 576, the least that IPv4 must carry`},
		{"huge", "[uids]\npool_start = 9999999999999999999\n", `f:2:14: syntax: decimal number is too large to fit in a 64-bit signed integer`},
		{"interval", "[audit]\ninterval = \"1s\"\n", `f:2:1: audit.interval: "1s" is not between 5s and 1h`},
		{"unit", "[instances]\nmemory = \"1XB\"\n",
			`f:2:1: instances.memory: size "1XB": has the unknown unit "XB"; write one of TiB, GiB, MiB, KiB, TB, GB, MB, kB, B`},
		{"path", "[runtime]\ndir = \"/usr/../tmp\"\n", `f:2:1: runtime.dir: "/usr/../tmp" is no clean absolute path`},
		{"listen", "[metrics]\nlisten = \"9877\"\n", `f:2:1: metrics.listen: "9877" is no address:port like 127.0.0.1:9877`},
		{"tenant of a kind's name", "[tenants]\nuids = {\"1000\" = \"instance\"}\n",
			`f:2:1: tenants.uids: tenant instance: metadata.name: "instance" is the name of a kind (Instance) and cannot be a tenant's`},
		{"user name", "[tenants.uids]\nbob = \"acme\"\n", `f:2:1: tenants.uids: "bob" is no user id`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			settings := &Config{origins: map[string]string{}}
			err := settings.parse("f", []byte(c.text))
			if err == nil {
				t.Fatal("accepted")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("kind %s", fault.KindOf(err))
			}
		})
	}
}

// TestChecksAcrossSettings names the line that set the wrong one.
func TestChecksAcrossSettings(t *testing.T) {
	cases := map[string]struct{ text, want string }{
		"pool start":          {"[uids]\npool_start = 70000\n", ":2: uids.pool_start: 70000 is no multiple of 65536"},
		"wardens in the pool": {"[uids]\nwardens = 1879048192\n", ":2: uids.wardens: 1879048192 lies in the tenants' pool"},
		"wardens are nobody":  {"[uids]\nwardens = 65534\n", ":2: uids.wardens: 65534 stands for every user without a place in a namespace"},
		"pool end":            {"[uids]\npool_start = 4294836224\n", ": uids.pool_size: the pool ends beyond the last user id"},
		"disk marks":          {"[images]\ndisk_low = 90\n", ":2: images.disk_low: 90 is not below images.disk_high, 85"},
		"shm":                 {"[instances]\nshm = \"1GiB\"\n", ":2: instances.shm: 1GiB is more than instances.memory, 512MiB"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			write(t, filepath.Join(PathsBelow(root).Etc, "gpuhost.toml"), c.text)
			_, err := Load(Options{Root: root})
			if err == nil || !strings.HasSuffix(err.Error(), c.want) && !strings.Contains(err.Error(), strings.TrimPrefix(c.want, ": ")) {
				t.Errorf("got %v, want …%s", err, c.want)
			}
		})
	}
}

func TestBadEnvironmentAndFlags(t *testing.T) {
	_, err := Load(Options{Root: t.TempDir(), Environ: []string{"GPUHOST_LOG_LEVEL=loud"}})
	want := `environment GPUHOST_LOG_LEVEL: log.level: "loud" is not one of debug, info, warn, error`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	_, err = Load(Options{Root: t.TempDir(), Flags: map[string]string{"log.levle": "info"}})
	if want := `flag: unknown setting "log.levle", the nearest is "log.level"`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestPaths(t *testing.T) {
	host := PathsBelow("")
	if host.Socket() != "/run/gpuhost/gpuhost.sock" || host.SpecDir() != "/etc/gpuhost/spec.d" {
		t.Errorf("%+v", host)
	}
	short, long := PathsBelow("/tmp/r"), PathsBelow("/tmp/"+strings.Repeat("long", 20))
	if short.Sockets != "/tmp/r/run" {
		t.Error(short.Sockets)
	}
	if len(long.Sockets+"/shim") > socketDirLimit || !strings.HasPrefix(long.Sockets, "/run/gpuhost-") {
		t.Error(long.Sockets)
	}
	if HostID("/a") == HostID("/b") || HostID("/a") != HostID("/a/") {
		t.Error("host ids do not follow roots")
	}
}

// FuzzParse: any text gives settings in force or an error that says where.
func FuzzParse(f *testing.F) {
	f.Add(DefaultText())
	f.Add("[tenants.uids]\n1 = \"a\"\n")
	f.Add("metrics = {listen = \"127.0.0.1:1\"}\n")
	f.Add("network.protected = [ # why\n \"10.0.0.0/8\", ]")
	place := regexp.MustCompile(`^f:\d+:\d+: `)
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		c.origins = map[string]string{}
		if err := c.parse("f", []byte(text)); err != nil {
			if !place.MatchString(err.Error()) {
				t.Fatalf("no place in %q", err)
			}
			return
		}
		again := &Config{origins: map[string]string{}}
		var out strings.Builder
		for _, s := range table(c) {
			out.WriteString(s.key + " = " + s.value.String() + "\n")
		}
		if err := again.parse("f", []byte(out.String())); err != nil {
			t.Fatalf("what was accepted reads back as %v:\n%s", err, out.String())
		}
		if diff := cmp.Diff(c, again, compare()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestDurationsAreCanonical(t *testing.T) {
	if got := duration(90 * time.Second); got != "1m30s" {
		t.Error(got)
	}
}
