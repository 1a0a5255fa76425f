package spec

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func refs(objects []*Object) []string {
	var all []string
	for _, o := range objects {
		all = append(all, o.Ref().String())
	}
	return all
}

func TestDefaultsForTenantAreValid(t *testing.T) {
	objects := DefaultsForTenant("acme")
	want := []string{"tenant acme", "network acme/default", "subnet acme/default", "securitygroup acme/default"}
	if diff := cmp.Diff(want, refs(objects)); diff != "" {
		t.Error(diff)
	}
	for _, o := range objects {
		before := o.Clone()
		Default(o)
		if diff := cmp.Diff(before, o); diff != "" {
			t.Errorf("%s is not complete: %s", o.Ref(), diff)
		}
		if err := Validate(o); err != nil {
			t.Error(err)
		}
		if o.Metadata.Source != SourceDefault {
			t.Errorf("%s has source %q", o.Ref(), o.Metadata.Source)
		}
	}
	if err := ValidateSet(objects); err != nil {
		t.Error(err)
	}
}

func TestMissingDefaults(t *testing.T) {
	cases := map[string]struct {
		text string
		want []string
	}{
		"first instance": {
			"kind: Instance\nmetadata: {tenant: a, name: i}\nspec: {image: debian}\n",
			[]string{"tenant a", "network a/default", "subnet a/default", "securitygroup a/default"},
		},
		"only a group": {
			"kind: SecurityGroup\nmetadata: {tenant: a, name: web}\n", []string{"tenant a"},
		},
		"an instance in another subnet": {
			"kind: Instance\nmetadata: {tenant: a, name: i}\nspec: {image: debian, network: {subnet: s}}\n",
			[]string{"tenant a", "securitygroup a/default"},
		},
		"a subnet of one's own": {
			"kind: Instance\nmetadata: {tenant: a, name: i}\nspec: {image: debian}\n---\n" +
				"kind: Subnet\nmetadata: {tenant: a, name: default}\nspec: {network: n, cidr: 10.9.0.0/24}\n",
			[]string{"tenant a", "securitygroup a/default"},
		},
		"nothing": {"kind: Tenant\nmetadata: {name: a}\n", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, refs(MissingDefaults(mustDecode(t, c.text)))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDefaultSubnetFollowsTheNetwork: a tenant whose default network is its own
// gets a default subnet inside it.
func TestDefaultSubnetFollowsTheNetwork(t *testing.T) {
	for cidr, want := range map[string]string{
		"192.168.0.0/16": "192.168.1.0/24", "10.64.0.0/10": "10.64.1.0/24", "172.16.4.0/24": "172.16.4.0/24", "172.16.4.0/23": "172.16.5.0/24",
	} {
		objects := defaulted(t, "kind: Instance\nmetadata: {tenant: a, name: i}\nspec: {image: debian}\n---\n"+
			"kind: Network\nmetadata: {tenant: a, name: default}\nspec: {cidr: "+cidr+"}\n")
		objects = append(objects, MissingDefaults(objects)...)
		for _, o := range objects {
			if s, is := o.Spec.(*SubnetSpec); is && s.CIDR != want {
				t.Errorf("%s: subnet %s, want %s", cidr, s.CIDR, want)
			}
		}
		if err := ValidateSet(objects); err != nil {
			t.Error(err)
		}
	}
}

// TestValidateSetAndDeletion: what is going away may lose what it named, and
// nobody may name what is going away.
func TestValidateSetAndDeletion(t *testing.T) {
	objects := append(DefaultsForTenant("a"), defaulted(t, "kind: Instance\nmetadata: {tenant: a, name: i}\nspec: {image: debian}\n")...)
	group, instance := objects[3], objects[4]
	at := time.Now()
	group.Metadata.DeletedAt = &at
	err := ValidateSet(objects)
	if !fault.Is(err, fault.Conflict) || !strings.HasSuffix(err.Error(), "securitygroup a/default is being deleted") {
		t.Error(err)
	}
	instance.Metadata.DeletedAt = &at
	if err := ValidateSet(objects); err != nil {
		t.Error(err)
	}
	if err := ValidateSet(append(objects, group)); !fault.Is(err, fault.Invalid) {
		t.Error("the same object twice:", err)
	}
}

// TestValidateChangeIsValidateSet: whatever changes, both answer the same.
func TestValidateChangeIsValidateSet(t *testing.T) {
	before := append(DefaultsForTenant("a"), defaulted(t, `
kind: Instance
metadata: {tenant: a, name: i}
spec: {image: debian, env: {K: {secret: s/k}}, network: {securityGroups: [default, web]}}
---
kind: SecurityGroup
metadata: {tenant: a, name: web}
spec: {ingress: [{action: accept, protocol: all, remote: "sg:other"}]}
---
kind: SecurityGroup
metadata: {tenant: a, name: other}
---
kind: Secret
metadata: {tenant: a, name: s}
spec: {data: {k: v}}
`)...)
	if err := ValidateSet(before); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var after []*Object
		for _, o := range before {
			changed := o.Clone()
			switch rapid.SampledFrom([]string{"same", "same", "same", "gone", "going", "changed", "emptied"}).Draw(t, "what") {
			case "same":
				after = append(after, o)
			case "going":
				at := time.Now()
				changed.Metadata.DeletedAt = &at
				after = append(after, changed)
			case "changed":
				if s, is := changed.Spec.(*SecurityGroupSpec); is {
					s.Egress = []Rule{{Action: ActionAccept, Protocol: ProtocolAll, Remote: rapid.SampledFrom([]string{"sg:web", "sg:absent"}).Draw(t, "remote")}}
				}
				after = append(after, changed)
			case "emptied":
				if s, is := changed.Spec.(*SecretSpec); is {
					s.Data = nil
				}
				after = append(after, changed)
			}
		}
		whole, part := ValidateSet(after), ValidateChange(before, after)
		if fault.KindOf(whole) != fault.KindOf(part) {
			t.Fatalf("whole: %v\npart:  %v", whole, part)
		}
	})
}

func TestRedactAndExport(t *testing.T) {
	o := &Object{APIVersion: APIVersion, Kind: KindSecret, Status: &Status{Phase: PhaseRunning}, Spec: &SecretSpec{Data: map[string]string{"k": "v"}},
		Metadata: Metadata{Tenant: "a", Name: "s", UID: "abcdefgh", Generation: 3, Source: SourceFile, CreatedAt: time.Now()}}
	exported := Export(o)
	want := &Object{APIVersion: APIVersion, Kind: KindSecret, Metadata: Metadata{Tenant: "a", Name: "s"},
		Spec: &SecretSpec{Data: map[string]string{"k": Redacted}}}
	if diff := cmp.Diff(want, exported); diff != "" {
		t.Error(diff)
	}
	if o.Spec.(*SecretSpec).Data["k"] != "v" {
		t.Error("the original lost its value")
	}
	tenant := DefaultsForTenant("a")[0]
	if Redact(tenant) != tenant {
		t.Error("what hides nothing needs no copy")
	}
}

// TestWrittenMetadata: of what only the store writes, uid and generation are
// kept: they ask that nobody was faster.
func TestWrittenMetadata(t *testing.T) {
	text := `{"kind":"Tenant","metadata":{"name":"a","uid":"abcdefgh","generation":4,"source":"file","createdAt":"2026-11-24T00:00:00Z",` +
		`"deletedAt":"2026-11-24T00:00:00Z"},"spec":{"quota":{}},"status":{"phase":"Running","fromTheFuture":1}}`
	got := mustDecode(t, text)[0]
	want := &Object{APIVersion: APIVersion, Kind: KindTenant, Metadata: Metadata{Name: "a", UID: "abcdefgh", Generation: 4}, Spec: &TenantSpec{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var whole Object
	if err := whole.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if whole.Metadata.Source != SourceFile || whole.Metadata.DeletedAt == nil || whole.Status == nil || whole.Status.Phase != PhaseRunning {
		t.Errorf("%+v", whole)
	}
	err := whole.UnmarshalJSON([]byte(`{"kind":"Tenant","metadata":{"name":"a"},"spec":{"quoter":{}}}`))
	if err == nil || !strings.Contains(err.Error(), `unknown field "quoter", the nearest is "quota"`) {
		t.Error(err)
	}
}

func TestParseImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for text, want := range map[string]string{
		"debian":                        "docker.io/library/debian:latest",
		"debian:12":                     "docker.io/library/debian:12",
		"index.docker.io/a/b":           "docker.io/a/b:latest",
		"registry.example/debian:12":    "registry.example/debian:12",
		"registry.example:5000/a/b":     "registry.example:5000/a/b:latest",
		"localhost/a":                   "localhost/a:latest",
		"[fd00::1]:5000/a":              "[fd00::1]:5000/a:latest",
		"debian@" + digest:              "docker.io/library/debian@" + digest,
		"debian:12@" + digest:           "docker.io/library/debian:12@" + digest,
		"oci-archive:/srv/images/a.tar": "oci-archive:/srv/images/a.tar",
	} {
		if got, err := ParseImage(text); err != nil || got.String() != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", ":", "/", "a//b", "../a", "a/../b", "A/b", "a:", "a:-x", "a@sha256:12", "a@md5:" + strings.Repeat("0", 32), "-a.example/b", "a b", "a\nb",
		"docker.io/", "a/" + strings.Repeat("b", 300), "oci-archive:", "oci-archive:/", "oci-archive:a", "oci-archive:/a/", "oci-archive:/a/../b",
		"oci-archive://a", "oci-archive:/a\x00b", "oci-archive:/a\tb", "oci-archive:/" + strings.Repeat("a", 5000), "http://a.example/b",
	} {
		if got, err := ParseImage(text); err == nil || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is taken as %s", text, got)
		}
	}
}

// TestFlowStyle: YAML that begins like JSON, and JSON that is none.
func TestFlowStyle(t *testing.T) {
	if got := mustDecode(t, "{kind: Tenant, metadata: {name: acme}}\n")[0].Metadata.Name; got != "acme" {
		t.Error(got)
	}
	_, err := Decode("body", []byte("{\"kind\": \"Tenant\",\n \"metadata\" {}}"))
	if want := "body:2:13: syntax: invalid character '{' after object key"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	two := mustDecode(t, "[{\"kind\":\"Tenant\",\"metadata\":{\"name\":\"a\"}},{\"kind\":\"Tenant\",\"metadata\":{\"name\":\"b\"}}]")
	if len(two) != 2 {
		t.Errorf("%d objects of a list of two", len(two))
	}
}
