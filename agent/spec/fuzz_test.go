package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: any bytes give an error that says where, or objects that read back.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(contractExample))
	files, _ := filepath.Glob("testdata/bad/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, section := range strings.Split(string(text), "### ")[1:] {
			_, body, _ := strings.Cut(section, "\n")
			f.Add([]byte(body))
		}
	}
	f.Add([]byte(`{"kind":"Secret","metadata":{"name":"a"},"spec":{"data":{"k":"\ud83d\ude00"}}}`))
	place := regexp.MustCompile(`^f:\d+:\d+: `)
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := Decode("f", text)
		if err != nil {
			if !place.MatchString(err.Error()) {
				t.Fatalf("no place in %q", err)
			}
			return
		}
		again, err := Encode(objects...)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode("f", again)
		if err != nil {
			t.Fatalf("what was accepted reads back as %v:\n%s", err, again)
		}
		if diff := cmp.Diff(objects, back); len(objects) > 0 && diff != "" {
			t.Fatal(diff)
		}
	})
}

// BenchmarkDecode reads a document of the largest size, as few lines as can be:
// 25 objects of 1,000 rules.
func BenchmarkDecode(b *testing.B) {
	var objects []*Object
	for i := range 25 {
		rules := make([]Rule, 1000)
		for j := range rules {
			rules[j] = Rule{Action: ActionAccept, Protocol: ProtocolTCP, Ports: "22,80,8000-9000", Remote: "10.0.0.0/8"}
		}
		objects = append(objects, &Object{APIVersion: APIVersion, Kind: KindSecurityGroup,
			Metadata: Metadata{Tenant: "acme", Name: "g" + strconv.Itoa(i)}, Spec: &SecurityGroupSpec{Ingress: rules}})
	}
	yamlText, err := Encode(objects...)
	if err != nil {
		b.Fatal(err)
	}
	jsonText, err := json.Marshal(objects)
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string][]byte{"yaml": yamlText, "json": jsonText} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := Decode("f", text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzParseImage: what is accepted has no way out of a folder or a name.
func FuzzParseImage(f *testing.F) {
	for _, seed := range []string{
		"debian", "debian:12", "r.example:5000/a/b@sha256:" + strings.Repeat("a", 64), "localhost/a", "[::1]:5000/a", "oci-archive:/a.tar",
		"oci-archive:/../a", "a//b", "a/../b", "A", "a:b:c", "a@b", "-a", "a\x00", "oci-archive:/a\nb",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		image, err := ParseImage(text)
		if err != nil {
			return
		}
		full := image.String()
		if strings.ContainsFunc(full, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("control character in %q", full)
		}
		for _, part := range strings.Split(full, "/") {
			if part == ".." || part == "." {
				t.Fatalf("traversal in %q", full)
			}
		}
		back, err := ParseImage(full)
		if err != nil || back != image {
			t.Fatalf("%q reads back as %+v, %v; was %+v", full, back, err, image)
		}
	})
}

// FuzzQuantity: accepted quantities are in bounds and canonical when printed.
func FuzzQuantity(f *testing.F) {
	for _, seed := range []string{"1", "0.5", "128GiB", "1Gbit", "30s", "-1", "1e9", "99999999999999999999", "0.0000000000000000000001GiB", ".", "1.", ".5", "1h30m"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := ParseBytes(text); err == nil {
			back, err := ParseBytes(v.String())
			if v < 0 || v > maxBytes || err != nil || back != v {
				t.Fatal(text, v, back, err)
			}
		}
		if v, err := ParseCPU(text); err == nil {
			back, err := ParseCPU(v.String())
			if v < 0 || v > maxCPU || err != nil || back != v {
				t.Fatal(text, v, back, err)
			}
		}
		if v, err := ParseBitRate(text); err == nil {
			back, err := ParseBitRate(v.String())
			if v < 0 || v > maxBitRate || err != nil || back != v {
				t.Fatal(text, v, back, err)
			}
		}
		if v, err := ParseDuration(text); err == nil {
			back, err := ParseDuration(v.String())
			if v < 0 || v > Duration(maxDuration) || err != nil || back != v {
				t.Fatal(text, v, back, err)
			}
		}
	})
}

// FuzzRule: accepted rules mean something definite.
func FuzzRule(f *testing.F) {
	f.Add("22,80,8000-9000", "0.0.0.0/0")
	f.Add("1-65535", "10.0.0.1-10.0.0.9")
	f.Add("", "sg:web")
	f.Add("0", "any")
	f.Add("22 , 80", "::/0")
	f.Fuzz(func(t *testing.T, ports, remote string) {
		if ranges, err := ParsePorts(ports); err == nil {
			for _, r := range ranges {
				if r.First == 0 || r.First > r.Last {
					t.Fatal(ports, r)
				}
			}
		}
		r, err := ParseRemote(remote)
		if err != nil {
			return
		}
		switch {
		case r.Any():
			if remote != "any" {
				t.Fatalf("%q means any", remote)
			}
		case r.Group != "":
			if labelProblem(r.Group) != "" {
				t.Fatal(r.Group)
			}
		case r.From.IsValid():
			if !r.From.Is4() || !r.To.Is4() || r.To.Less(r.From) {
				t.Fatal(r)
			}
		default:
			if !r.Prefix.IsValid() || !r.Prefix.Addr().Is4() || r.Prefix != r.Prefix.Masked() {
				t.Fatal(r)
			}
		}
	})
}
