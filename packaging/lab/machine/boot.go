package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/packaging/lab/wire"
)

// niceness of the guest: who builds or types beside it goes first.
const niceness = 5

// cutStatus is qemu's exit status when the guest wrote 1 to its debug-exit port:
// how a program inside takes the power away at the very moment it chooses.
const cutStatus = 1<<1 | 1

// Down says how a machine went down.
type Down struct {
	PowerCut bool   // the guest cut its own power
	Panic    string // the kernel's last words
	Err      error  // qemu itself failed
}

// Error says it in words.
func (d *Down) Error() string {
	switch {
	case d.Panic != "":
		return "the guest's kernel died: " + d.Panic
	case d.PowerCut:
		return "the power was cut"
	case d.Err != nil:
		return "qemu ended: " + d.Err.Error()
	}
	return "the machine went down in order"
}

// Unwrap returns qemu's own failure.
func (d *Down) Unwrap() error { return d.Err }

// boot is one life of the machine.
type boot struct {
	cmd      *exec.Cmd
	port     net.Conn // to the driver
	serial   net.Conn // to the console
	requests *json.Encoder
	console  *console
	events   chan wire.Event
	down     chan struct{} // closed when qemu has ended
	end      *Down         // valid then
}

// start starts qemu, which connects to two sockets of ours.
func (m *Machine) start(ctx context.Context) (*boot, error) {
	port, err := listen(filepath.Join(m.spec.Dir, "port"))
	if err != nil {
		return nil, err
	}
	defer port.Close()
	serial, err := listen(filepath.Join(m.spec.Dir, "serial"))
	if err != nil {
		return nil, err
	}
	defer serial.Close()
	log, err := os.OpenFile(m.Serial(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	b := &boot{console: &console{log: log}, events: make(chan wire.Event), down: make(chan struct{})}
	b.cmd = exec.Command("qemu-system-x86_64", m.arguments()...)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	// A lab that is killed takes its guest along.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, b.cmd.Process.Pid, niceness); err != nil {
		b.kill()
		return nil, fmt.Errorf("be nice: %w", err)
	}
	return b, b.connect(ctx, port, serial)
}

// connect waits for qemu's connections; a qemu that fails makes none.
func (b *boot) connect(ctx context.Context, port, serial net.Listener) error {
	stop := context.AfterFunc(ctx, func() { port.Close(); serial.Close() })
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- b.cmd.Wait()
		port.Close()
		serial.Close()
	}()
	var err error
	if b.serial, err = serial.Accept(); err == nil {
		b.port, err = port.Accept()
	}
	if err != nil {
		b.kill()
		return errors.Join(err, <-ended)
	}
	b.requests = wire.Encoder(b.port)
	go b.listen()
	go b.watch(ended)
	return nil
}

func listen(path string) (net.Listener, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// listen passes the driver's events on.
func (b *boot) listen() {
	decoder := wire.Decoder(b.port)
	for {
		var e wire.Event
		if decoder.Decode(&e) != nil {
			return // the machine goes down, which b.down says
		}
		select {
		case b.events <- e:
		case <-b.down:
			return
		}
	}
}

// watch follows the console until qemu ends, and kills it when the kernel dies.
func (b *boot) watch(ended <-chan error) {
	panicked := b.console.follow(b.serial)
	if panicked != "" {
		b.kill()
	}
	err := <-ended
	b.end = &Down{Panic: panicked, Err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == cutStatus {
		b.end.PowerCut, b.end.Err = true, nil
	}
	b.port.Close()
	b.serial.Close()
	b.console.log.Close()
	close(b.down)
}

func (b *boot) ask(r wire.Request) error { return b.requests.Encode(r) }

func (b *boot) kill() { _ = b.cmd.Process.Kill() }
