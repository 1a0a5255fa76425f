package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestThisProgram writes the bill and the notices of the test itself.
func TestThisProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	args := []string{"-name", "bom", "-version", "1.2.3", "-out", out, "-c", "libseccomp=2.5.4", self}
	if err := run(args); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "sbom.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range d.Components {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "std libseccomp" {
		t.Errorf("components: %s", got)
	}
	first, err := os.ReadFile(filepath.Join(out, "third-party-notices"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(first, []byte("Copyright 2009 The Go Authors")) {
		t.Error("Go's own licence is missing")
	}
	if err := run(args); err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(filepath.Join(out, "sbom.cdx.json"))
	if err != nil || !bytes.Equal(text, second) {
		t.Errorf("a second run gives other bytes: %v", err)
	}
}

func TestLegalNames(t *testing.T) {
	for name, want := range map[string]bool{
		"LICENSE": true, "LICENSE.md": true, "licence.txt": true, "COPYING": true, "NOTICE": true, "PATENTS": true,
		"LICENSE-APACHE": true, "license_test.go": true, "README": false, "licenses.go": false,
	} {
		if got := legal(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
