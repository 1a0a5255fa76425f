package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// Times under emulation, on two cores that do other things too.
const (
	bootPatience = 10 * time.Minute
	silence      = 30 * time.Second // beyond a script's own timeout
)

// Spec says what the machine is made of.
type Spec struct {
	Image   string // folder with root.img, vmlinux and initrd
	Payload string // file of the second, read-only drive
	Dir     string // folder for this machine's disk and logs; emptied
}

// Machine is one guest. Its methods are for one goroutine.
type Machine struct {
	spec Spec
	boot *boot // nil while it is off
	asks int
}

// New makes the machine's disk, an overlay of the image. It is off.
func New(s Spec) (*Machine, error) {
	if err := os.RemoveAll(s.Dir); err != nil {
		return nil, fmt.Errorf("empty the machine's folder: %w", err)
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the machine's folder: %w", err)
	}
	image, err := filepath.Abs(filepath.Join(s.Image, "root.img"))
	if err != nil {
		return nil, err
	}
	m := &Machine{spec: s}
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, m.disk()).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("make the machine's disk: %w: %s", err, out)
	}
	return m, nil
}

func (m *Machine) disk() string { return filepath.Join(m.spec.Dir, "disk.qcow2") }

// Journal is the file that the guest's journal is copied to.
func (m *Machine) Journal() string { return filepath.Join(m.spec.Dir, "journal.log") }

// Serial is the file with what the kernel and the console said.
func (m *Machine) Serial() string { return filepath.Join(m.spec.Dir, "serial.log") }

// Boot switches the machine on and returns when its driver has greeted.
func (m *Machine) Boot(ctx context.Context) (*wire.Hello, error) {
	if m.boot != nil {
		return nil, errors.New("boot the machine: it is on")
	}
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	b, err := m.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	m.boot = b
	for {
		select {
		case e := <-b.events:
			if e.Hello != nil {
				return e.Hello, nil
			}
		case <-b.down:
			m.boot = nil
			return nil, b.end
		case <-ctx.Done():
			m.Cut()
			return nil, fmt.Errorf("boot the machine: no greeting: %w", context.Cause(ctx))
		}
	}
}

// Run runs a script as root and copies what it prints to out. The error is a
// [*Down] when the machine went down meanwhile.
func (m *Machine) Run(ctx context.Context, script string, timeout time.Duration, out io.Writer) (wire.Exit, error) {
	if m.boot == nil {
		return wire.Exit{}, errors.New("run script: the machine is off")
	}
	m.asks++
	if err := m.boot.ask(wire.Request{ID: m.asks, Script: script, Timeout: timeout}); err != nil {
		return wire.Exit{}, fmt.Errorf("ask the guest: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout+silence, errors.New("the guest does not answer"))
	defer cancel()
	for {
		select {
		case e := <-m.boot.events:
			if e.ID != m.asks {
				continue
			}
			if e.Exit != nil {
				return *e.Exit, nil
			}
			_, _ = out.Write(e.Out)
		case <-m.boot.down:
			return wire.Exit{}, m.off()
		case <-ctx.Done():
			return wire.Exit{}, context.Cause(ctx)
		}
	}
}

// WaitDown waits until the machine is off and says how that came.
func (m *Machine) WaitDown(ctx context.Context) error {
	if m.boot == nil {
		return errors.New("wait for the machine's end: it is off")
	}
	select {
	case <-m.boot.down:
		return m.off()
	case <-ctx.Done():
		return fmt.Errorf("the machine is still on: %w", context.Cause(ctx))
	}
}

// off forgets a boot that has ended.
func (m *Machine) off() error {
	end := m.boot.end
	m.boot = nil
	return end
}

// Cut takes the power away. It may be off already.
func (m *Machine) Cut() {
	if m.boot == nil {
		return
	}
	m.boot.kill()
	<-m.boot.down
	m.boot = nil
}

// Console connects a terminal with the machine's console until in ends or the
// machine goes down.
func (m *Machine) Console(in io.Reader, out io.Writer) {
	if m.boot == nil {
		return
	}
	m.boot.console.show(out)
	typed := make(chan struct{})
	go func() {
		defer close(typed)
		_, _ = io.Copy(m.boot.serial, in)
	}()
	select {
	case <-typed:
	case <-m.boot.down:
	}
}
