package spec

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// label, text and friends draw what Validate accepts, nasty where it may be.

func label() *rapid.Generator[string] {
	return rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?`).Filter(func(s string) bool {
		_, isKind := ParseKind(s)
		return !isKind
	})
}

// text is anything a person may mean, and what YAML could take for something else.
func text() *rapid.Generator[string] {
	odd := []string{"", " ", "~", "null", "true", "yes", "no", "on", "0x10", "010", "1e3", "1_000", ".5", "-", "- a", "? a", ": b", "a: b",
		"a #b", "#", "{}", "[]", "*a", "&a", "!x", "%", "@", "`", "|", ">", "'", "\"", "a\nb", "\n", "\n\n ", " lead", "trail ", "tab\tin", "a\r\nb",
		"2026-11-24", "12:30:45", "<<", "=", "---", "--- a", "...", "\u00e9\u4e16\U0001F600", "\u2028", "\ufeff", "\u0085x"}
	clean := rapid.Map(rapid.String(), func(s string) string {
		return strings.Map(func(r rune) rune {
			if isControl(r) {
				return -1
			}
			return r
		}, s)
	})
	return rapid.OneOf(rapid.SampledFrom(odd).Filter(func(s string) bool { return !strings.ContainsFunc(s, isControl) }), clean)
}

func metadata(t *rapid.T, tenanted bool) Metadata {
	m := Metadata{Name: label().Draw(t, "name")}
	if tenanted {
		m.Tenant = label().Draw(t, "tenant")
	}
	m.Labels = nonEmpty(rapid.MapOfN(rapid.StringMatching(`[a-zA-Z0-9._/-]{1,20}`), rapid.StringMatching(`[a-zA-Z0-9._/-]{0,20}`), 0, 3).Draw(t, "labels"))
	return m
}

func nonEmpty[K comparable, V any](m map[K]V) map[K]V {
	if len(m) == 0 {
		return nil
	}
	return m
}

func drawInstance(t *rapid.T) *InstanceSpec {
	s := &InstanceSpec{
		Image:     rapid.SampledFrom([]string{"debian", "r.example:5000/a/b:1", "oci-archive:/srv/a b.tar"}).Draw(t, "image"),
		Command:   rapid.SliceOfN(text(), 0, 3).Filter(func(c []string) bool { return len(c) == 0 || c[0] != "" }).Draw(t, "command"),
		User:      rapid.SampledFrom([]string{"", "0", "1000", "1000:5"}).Draw(t, "user"),
		State:     rapid.SampledFrom([]string{"", StateRunning, StateStopped}).Draw(t, "state"),
		StopGrace: Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "grace")),
		Resources: ResourcesSpec{
			CPUs:   CPU(rapid.Int64Range(minCPU, 1_000_000).Draw(t, "cpus")),
			Memory: Bytes(rapid.Int64Range(minMemory, maxBytes).Draw(t, "memory")),
			Pids:   rapid.Int64Range(0, 1000).Draw(t, "pids"),
		},
		GPUs: GPURequest{Count: rapid.IntRange(0, 8).Draw(t, "gpus"), Model: text().Draw(t, "model")},
	}
	if len(s.Command) == 0 {
		s.Command = nil
	}
	env := map[string]EnvValue{}
	for name, value := range rapid.MapOfN(rapid.StringMatching(`[A-Z][A-Z0-9_]{0,8}`), text(), 0, 3).Draw(t, "env") {
		env[name] = EnvValue{Value: value}
	}
	if rapid.Bool().Draw(t, "secret") {
		env["TOKEN"] = EnvValue{Secret: "name/key"}
	}
	s.Env = nonEmpty(env)
	if port := rapid.Uint16Range(0, 65535).Draw(t, "port"); port != 0 {
		s.Publish = []Publish{{HostPort: port, Port: 22, Protocol: "tcp"}, {HostPort: port, Port: 53, Protocol: "udp"}}
	}
	return s
}

func drawRules(t *rapid.T, name string) []Rule {
	var rules []Rule
	for range rapid.IntRange(0, 3).Draw(t, name) {
		rules = append(rules, Rule{
			Action: ActionAccept, Protocol: ProtocolTCP,
			Ports:  rapid.SampledFrom([]string{"", "22", "1-65535", "22,80,8000-9000"}).Draw(t, "ports"),
			Remote: rapid.SampledFrom([]string{"any", "10.0.0.0/8", "1.2.3.4", "10.0.0.1-10.0.0.9", "sg:default"}).Draw(t, "remote"),
		})
	}
	return rules
}

func drawObject(t *rapid.T) *Object {
	kind := rapid.SampledFrom([]Kind{KindHost, KindTenant, KindInstance, KindSecret, KindNetwork, KindSubnet, KindSecurityGroup}).Draw(t, "kind")
	o := &Object{APIVersion: APIVersion, Kind: kind, Metadata: metadata(t, kind.Tenanted())}
	switch kind {
	case KindHost:
		o.Metadata = Metadata{Name: HostName}
		o.Spec = &HostSpec{Overcommit: OvercommitSpec{CPU: rapid.Float64Range(1, 100).Draw(t, "overcommit")},
			Reserved: ReservedSpec{CPUs: CPU(rapid.Int64Range(0, maxCPU).Draw(t, "cpus"))}}
	case KindTenant:
		n, memory := rapid.IntRange(0, 9).Draw(t, "n"), Bytes(rapid.Int64Range(0, maxBytes).Draw(t, "memory"))
		o.Spec = &TenantSpec{Quota: QuotaSpec{Instances: &n, Memory: &memory}}
	case KindInstance:
		o.Spec = drawInstance(t)
	case KindSecret:
		o.Spec = &SecretSpec{Data: nonEmpty(rapid.MapOfN(rapid.StringMatching(`[a-zA-Z0-9._-]{1,20}`), text(), 0, 4).Draw(t, "data"))}
	case KindNetwork:
		o.Spec = &NetworkSpec{CIDR: "10.0.0.0/16"}
	case KindSubnet:
		o.Spec = &SubnetSpec{Network: label().Draw(t, "network"), CIDR: "10.0.1.0/24"}
	case KindSecurityGroup:
		o.Spec = &SecurityGroupSpec{Ingress: drawRules(t, "ingress"), Egress: drawRules(t, "egress")}
	}
	return o
}

// TestEveryObjectReadsBack: through YAML, JSON and the stored form.
func TestEveryObjectReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawObject(t)
		if err := Validate(o); err != nil {
			t.Fatalf("the generator draws what Validate refuses: %v", err)
		}
		yamlText, err := Encode(o, DefaultsForTenant("other")[0])
		if err != nil {
			t.Fatal(err)
		}
		read, err := Decode("t", yamlText)
		if err != nil {
			t.Fatalf("%v\n%s", err, yamlText)
		}
		if diff := cmp.Diff(o, read[0]); diff != "" || len(read) != 2 {
			t.Fatalf("%s\n%s", diff, yamlText)
		}
		jsonText, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		for name, unmarshal := range map[string]func([]byte, *Object) error{
			"JSON":   func(text []byte, o *Object) error { return json.Unmarshal(text, o) },
			"stored": func(text []byte, o *Object) error { return o.UnmarshalStored(text) },
			"Decode": func(text []byte, o *Object) error {
				objects, err := Decode("t", text)
				if err == nil {
					*o = *objects[0]
				}
				return err
			},
		} {
			var back Object
			if err := unmarshal(jsonText, &back); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, jsonText)
			}
			if diff := cmp.Diff(o, &back); diff != "" {
				t.Fatalf("%s: %s", name, diff)
			}
		}
	})
}

func TestCloneSharesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawObject(t)
		at := time.Now()
		o.Metadata.DeletedAt = &at
		o.Status = &Status{Phase: PhaseRunning, Conditions: []Condition{{Type: "Ready"}}, Instance: &InstanceStatus{LastExit: &ExitStatus{Code: 1}}}
		c := o.Clone()
		if diff := cmp.Diff(o, c); diff != "" {
			t.Fatal(diff)
		}
		if path := shared(reflect.ValueOf(o), reflect.ValueOf(c), "o"); path != "" {
			t.Fatal("shared: " + path)
		}
	})
}

// shared finds memory that two values have in common.
func shared(a, b reflect.Value, path string) string {
	switch a.Kind() {
	case reflect.Pointer, reflect.Interface:
		if a.IsNil() {
			return ""
		}
		if a.Kind() == reflect.Pointer && a.Pointer() == b.Pointer() {
			return path
		}
		return shared(a.Elem(), b.Elem(), path)
	case reflect.Slice:
		if a.Len() > 0 && a.Pointer() == b.Pointer() {
			return path
		}
		for i := range a.Len() {
			if found := shared(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", path, i)); found != "" {
				return found
			}
		}
	case reflect.Map:
		if a.Len() > 0 && a.Pointer() == b.Pointer() {
			return path
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if !a.Type().Field(i).IsExported() {
				continue
			}
			if found := shared(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name); found != "" {
				return found
			}
		}
	}
	return ""
}

func TestDefaultTwiceIsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		once := drawObject(t)
		Default(once)
		if err := Validate(once); err != nil {
			t.Fatal(err)
		}
		twice := once.Clone()
		Default(twice)
		if diff := cmp.Diff(once, twice); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestQuantitiesPrintCanonically: what is printed is read as the same value, and
// printed the same again.
func TestQuantitiesPrintCanonically(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, maxBitRate).Draw(t, "n")
		bytes, cpu, rate := Bytes(n%maxBytes), CPU(n%maxCPU), BitRate(n)
		duration := Duration(rapid.Int64Range(0, int64(maxDuration)).Draw(t, "d"))
		if got, err := ParseBytes(bytes.String()); err != nil || got != bytes {
			t.Fatal(bytes, got, err)
		}
		if got, err := ParseCPU(cpu.String()); err != nil || got != cpu {
			t.Fatal(cpu, got, err)
		}
		if got, err := ParseBitRate(rate.String()); err != nil || got != rate {
			t.Fatal(rate, got, err)
		}
		if got, err := ParseDuration(duration.String()); err != nil || got != duration {
			t.Fatal(duration, got, err)
		}
	})
}

func TestQuantityTexts(t *testing.T) {
	texts := map[string]string{
		Bytes(0).String(): "0", Bytes(1000).String(): "1000", Bytes(1 << 30).String(): "1GiB", Bytes(1536 << 20).String(): "1536MiB",
		CPU(0).String(): "0", CPU(500).String(): "0.5", CPU(16000).String(): "16", CPU(1).String(): "0.001",
		BitRate(0).String(): "0bit", BitRate(1e9).String(): "1Gbit", BitRate(1500).String(): "1500bit",
		Duration(0).String(): "0s", Duration(time.Hour).String(): "1h", Duration(90 * time.Second).String(): "1m30s",
		Duration(time.Hour + time.Second).String(): "1h0m1s", Duration(10 * time.Minute).String(): "10m",
	}
	for got, want := range texts {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for text, want := range map[string]Bytes{"1.5GiB": 1536 << 20, "1kB": 1000, "7B": 7, "0.5KiB": 512, "16TiB": 16 << 40} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	if math.MaxInt64/maxBytes < 100_000 {
		t.Error("a hundred thousand of the largest sizes overflow")
	}
}

func TestUIDs(t *testing.T) {
	seen := map[UID]bool{}
	for range 1000 {
		uid := NewUID()
		if !uid.Valid() || seen[uid] {
			t.Fatal(uid)
		}
		seen[uid] = true
	}
	for _, uid := range []UID{"", "short", "toolonguid", "UPPERCAS", "../../ab", "abcdefg1"} {
		if uid.Valid() {
			t.Error(uid)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"ingress", "egress", "image", "memory", "cpus"}
	for name, want := range map[string]string{
		"memroy": "memory", "Image": "image", "igress": "ingress", "cpu": "cpus", "bandwidth": "", "": "", strings.Repeat("a", 100): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}
