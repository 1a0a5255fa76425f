package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTrimKeepsTheEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "containerd.log")
	if err := trim(file, 10); err != nil {
		t.Errorf("there is none: %v", err)
	}
	log, err := os.OpenFile(file, logFlags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, row := range []struct{ write, log, old string }{
		{"0123456789", "0123456789", ""},
		{"abcde", "", "56789abcde"},
		{"next", "next", "56789abcde"},
		{strings.Repeat("x", 20) + "0123456789", "", "0123456789"},
	} {
		if _, err := log.WriteString(row.write); err != nil {
			t.Fatal(err)
		}
		if err := trim(file, 10); err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(file)
		old, _ := os.ReadFile(file + ".1")
		if diff := cmp.Diff([]string{row.log, row.old}, []string{string(now), string(old)}); err != nil || diff != "" {
			t.Errorf("after %q: %v %s", row.write, err, diff)
		}
	}
}
