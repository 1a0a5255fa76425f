package fault_test

import (
	"testing"

	"github.com/gpuhost/gpuhost/agent/fault"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"python train.py":    "python train.py",
		"größe 名":            "größe 名",
		"a\x1b[2J\nb\tc\x7f": "a?[2J?b?c?",
		"\xff\xfe":           "??",
		"\u202egnp.exe":      "?gnp.exe",
	} {
		if have := fault.Printable(text); have != want {
			t.Errorf("%q: have %q, want %q", text, have, want)
		}
	}
}
