package machine

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

func TestConsoleFollows(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"nothing wrong", "Debian\nlogin: ", ""},
		{"a panic", "all well\n[ 1.0] Kernel panic - not syncing: Attempted to kill init!\nmore", "[ 1.0] Kernel panic - not syncing"},
		{"emergency mode", "You are in emergency mode. After logging in\n", "You are in emergency mode"},
		{"a word on two lines is none", "Kernel panic\n - not syncing\n", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "serial.log")
			log, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			var shown bytes.Buffer
			c := &console{log: log}
			c.show(&shown)
			// Byte by byte: a line comes in parts.
			got := c.follow(iotest.OneByteReader(bytes.NewReader([]byte(row.text))))
			if got != row.want {
				t.Errorf("died with %q, want %q", got, row.want)
			}
			kept, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(kept, shown.Bytes()) || got == "" && string(kept) != row.text {
				t.Errorf("kept %q, showed %q", kept, shown.String())
			}
		})
	}
}

// Whoever reads the console gets the whole line of a death that came in one piece.
func TestConsoleTellsTheLine(t *testing.T) {
	c := &console{log: os.NewFile(^uintptr(0), "none")}
	r, w := io.Pipe()
	go func() { _, _ = w.Write([]byte("x\n[ 9.1] Kernel panic - not syncing: Fatal exception\n")); w.Close() }()
	if got, want := c.follow(r), "[ 9.1] Kernel panic - not syncing: Fatal exception"; got != want {
		t.Errorf("died with %q, want %q", got, want)
	}
}
