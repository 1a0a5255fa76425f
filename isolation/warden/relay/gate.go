package relay

import (
	"io"
	"os"
	"sync"

	"github.com/gpuhost/gpuhost/agent/frame"
)

// gate is where output goes. It is shut until a controller has come, so that a
// process cannot outrun its reader, and a hole once the controller is gone or
// has not come in time.
//
//	shut ──controller──▶ open ──a write fails──▶ hole
//	  └───────────out of patience─────────────────▲
type gate struct {
	opened chan struct{} // closed on leaving "shut"
	once   sync.Once

	conn *os.File // nil in the hole; set before opened is closed
	out  *frame.Writer
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

// open lets output go to conn, nil being the hole. Only the first call counts.
func (g *gate) open(conn *os.File) (first bool) {
	g.once.Do(func() {
		first = true
		if conn != nil {
			g.conn, g.out = conn, frame.NewWriter(conn)
		}
		close(g.opened)
	})
	return first
}

// send waits for the gate to open and writes p. What a controller does not take
// any more is dropped: the frame writer stays failed after its first error.
func (g *gate) send(t frame.Type, p []byte) {
	<-g.opened
	if g.out != nil {
		_ = g.out.Data(t, p)
	}
}

// close ends the controller's stream after all that was sent.
func (g *gate) close() {
	if g.conn != nil {
		g.conn.Close()
	}
}

// pump moves one stream of the process through the gate to its end.
func (o output) pump(g *gate) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := o.fifo.Read(buf)
		if n > 0 {
			g.send(o.kind, buf[:n])
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
