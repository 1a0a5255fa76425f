package machine

import (
	"bytes"
	"io"
	"os"
	"sync"
)

// deaths are what a kernel says that will not go on.
var deaths = [][]byte{
	[]byte("Kernel panic - not syncing"),
	[]byte("Kernel BUG at"),
	[]byte("Give root password for maintenance"), // systemd's emergency mode
	[]byte("You are in emergency mode"),
}

// console is what the machine's serial line says: kept in a file, and shown to
// whoever looks.
type console struct {
	log *os.File

	mu    sync.Mutex
	shown io.Writer
}

// show copies what comes from now on to w.
func (c *console) show(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown = w
}

// follow reads the line to its end, or until the kernel dies: then it returns
// the line that says so.
func (c *console) follow(r io.Reader) (panicked string) {
	var line []byte
	buffer := make([]byte, 4096)
	for {
		n, err := r.Read(buffer)
		c.pass(buffer[:n])
		for part := range bytes.Lines(buffer[:n]) {
			line = append(line, part...)
			if isDeath(line) {
				return string(bytes.TrimSpace(line))
			}
			if bytes.HasSuffix(line, []byte("\n")) {
				line = line[:0]
			}
		}
		if err != nil {
			return ""
		}
	}
}

func (c *console) pass(text []byte) {
	_, _ = c.log.Write(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shown != nil {
		_, _ = c.shown.Write(text)
	}
}

func isDeath(line []byte) bool {
	for _, death := range deaths {
		if bytes.Contains(line, death) {
			return true
		}
	}
	return false
}
