package spec

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/fault"
)

var update = flag.Bool("update", false, "rewrite testdata")

// TestBadInput reads testdata/bad/*.yaml: documents separated by "### name",
// and compares everything a person would read with the .golden beside it.
func TestBadInput(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, section := range strings.Split(string(text), "### ")[1:] {
				name, body, _ := strings.Cut(section, "\n")
				fmt.Fprintf(&got, "### %s\n%s", name, answer(body))
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", got.String())
		})
	}
}

// answer is what becomes of a text all the way: decoding, defaults, validation,
// validation of the set. The defaults of its tenants are there.
func answer(text string) string {
	objects, err := Decode("f.yaml", []byte(text))
	if err != nil {
		return shown(err)
	}
	objects = append(objects, MissingDefaults(objects)...)
	for _, o := range objects {
		Default(o)
		if err := Validate(o); err != nil {
			return shown(err)
		}
	}
	if err := ValidateSet(objects); err != nil {
		return shown(err)
	}
	return "ACCEPTED\n"
}

func shown(err error) string {
	text := fmt.Sprintf("%s: %s\n", fault.KindOf(err), err)
	if hint := fault.HintOf(err); hint != "" {
		text += "hint: " + hint + "\n"
	}
	return text
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// TestBadBytes holds what an editor would spoil in a file.
func TestBadBytes(t *testing.T) {
	cases := map[string]struct{ text, want string }{
		"not UTF-8":           {"kind: Tenant\nmetadata: {name: \xff}\n", "f.yaml:2:18: is not UTF-8"},
		"JSON, truncated":     {`{"kind": "Tenant",`, "f.json:1:19: syntax: unexpected EOF"},
		"JSON, syntax":        {"{\"kind\":\n \"Tenant\" x}", "f.json:2:11: syntax: invalid character 'x' after object key:value pair"},
		"JSON, unknown":       {"{\"kind\": \"Tenant\",\n  \"metadta\": {}}", `f.json:2:3: unknown field "metadta", the nearest is "metadata"`},
		"JSON, twice":         {"{\"kind\": \"Tenant\", \"kind\": \"Host\"}", `f.json:1:20: "kind" is there twice`},
		"JSON, deep":          {strings.Repeat("[", 40), "f.json:1:33: is nested more than 32 deep"},
		"JSON, control":       {`{"kind":"Tenant","metadata":{"name":"a\u001b[31m"}}`, `f.json:1:37: metadata.name: has the control character U+001B`},
		"JSON, hidden by NUL": {`{"kind":"Tenant","metadata":{"name":"a\u0000"}}`, `f.json:1:37: metadata.name: has the control character U+0000`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(c.want[:6], []byte(c.text))
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	object := func(size int) string {
		return "kind: Secret\nmetadata: {tenant: a, name: s}\nspec: {data: {k: \"" + strings.Repeat("x", size) + "\"}}\n"
	}
	if _, err := Decode("f", []byte(object(MaxObject-200))); err != nil {
		t.Error(err)
	}
	_, err := Decode("f", []byte("# one line\n"+object(MaxObject)))
	if want := "f:2:1: secret a/s: is longer than 1MiB"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	// What is right and too much is not tried as YAML.
	_, err = Decode("f", []byte(`{"kind": "Tenant", "spec": [`+strings.Repeat("0,", 1<<20)+"0]}"))
	if want := "f:1:1200019: has more than 600000 values"; !fault.Is(err, fault.Invalid) || err.Error() != want {
		t.Errorf("got %v", err)
	}
	_, err = Decode("f", make([]byte, MaxDocument+1))
	if want := "f:1:1: is longer than 4MiB"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestDecodeDir(t *testing.T) {
	tenant := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("kind: Tenant\nmetadata: {name: " + name + "}\n")}
	}
	objects, err := DecodeDir(fstest.MapFS{
		"20.yml": tenant("b"), "10.yaml": tenant("a"), "30.json": {Data: []byte(`{"kind":"Tenant","metadata":{"name":"c"}}`)},
		"notes.txt": {Data: []byte("no object")}, ".hidden.yaml": {Data: []byte("}")}, "sub/40.yaml": {Data: []byte("}")},
	})
	var names []string
	for _, o := range objects {
		names = append(names, o.Metadata.Name)
	}
	if err != nil || !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("%v, %v", names, err)
	}
	_, err = DecodeDir(fstest.MapFS{"a.yaml": tenant("x"), "b.yaml": tenant("x")})
	if want := "b.yaml:1:1: tenant x is there twice, first at a.yaml:1:1"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	large := fstest.MapFS{}
	for i := range 17 {
		large[fmt.Sprintf("%02d.yaml", i)] = &fstest.MapFile{Data: []byte("#" + strings.Repeat(" ", MaxDocument-1))}
	}
	_, err = DecodeDir(large)
	if want := "16.yaml:1:1: the folder holds more than 64MiB"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
