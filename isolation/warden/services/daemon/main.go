// Warden-services is `warden services`: DNS for all VPCs of this host. It is a
// program of its own because what DNS needs would double the memory of every
// log writer. See isolation/warden/services.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation/warden/confine"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
	"github.com/gpuhost/gpuhost/isolation/warden/services/resolver"
)

// memoryLimit makes the collector work harder before tenants' queries make this
// process large.
const memoryLimit = 64 << 20

type options struct {
	socket   string
	readyFD  int
	uid, gid int
	takeover bool
	resolver resolver.Options
}

func main() {
	o := parseFlags(os.Args[1:])
	if err := run(o); err != nil {
		report(&o, err.Error())
		fmt.Fprintln(os.Stderr, "warden-services:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) options {
	var o options
	flags := flag.NewFlagSet("warden-services", flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "/run/gpuhost/services.sock", "control `socket` to listen on")
	flags.Func("upstream", "resolver to ask, `address:port`, repeated; none reads /etc/resolv.conf", func(server string) error {
		o.resolver.Upstreams = append(o.resolver.Upstreams, server)
		return nil
	})
	flags.BoolVar(&o.takeover, "takeover", false, "take over from the process that listens on the socket")
	flags.IntVar(&o.uid, "uid", 0, "user to become")
	flags.IntVar(&o.gid, "gid", 0, "group to become")
	flags.IntVar(&o.readyFD, "ready-fd", -1, "open descriptor to report on")
	_ = flags.Parse(args) // ExitOnError
	return o
}

func run(o options) error {
	if err := confine.CloseInherited(o.readyFD); err != nil {
		return err
	}
	debug.SetMemoryLimit(memoryLimit)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o.resolver.Version = version()
	server := resolver.New(context.Background(), o.resolver)
	listener, err := begin(ctx, o, server)
	if err != nil {
		return err
	}
	if err := confine.Process(confine.Options{UID: o.uid, GID: o.gid, Calls: confine.Network()}); err != nil {
		return err
	}
	report(&o, "ready\n")
	return server.Serve(ctx, listener)
}

// takeoverLimit bounds how long queries may wait in the sockets while one
// process follows another.
const takeoverLimit = 5 * time.Second

// begin listens in place of a predecessor, if there is one, and only then lets
// it end: whatever fails before that leaves it at work.
func begin(ctx context.Context, o options, server *resolver.Server) (*net.UnixListener, error) {
	ctx, cancel := context.WithTimeout(ctx, takeoverLimit)
	defer cancel()
	old, err := predecessor(ctx, o)
	if err != nil {
		return nil, err
	}
	if old != nil {
		defer old.Close()
		if err := server.TakeOver(ctx, old); err != nil {
			return nil, err
		}
	}
	listener, err := listen(o.socket)
	if err != nil {
		return nil, err
	}
	if old != nil {
		_ = old.Taken(ctx) // one that died in between has ended as well
	}
	return listener, nil
}

func predecessor(ctx context.Context, o options) (*services.Client, error) {
	old, err := services.Dial(ctx, o.socket)
	switch {
	case fault.Is(err, fault.Temporary):
		return nil, nil // nobody listens
	case err != nil:
		return nil, err
	case !o.takeover:
		old.Close()
		return nil, fault.New(fault.Busy, "listen on "+o.socket, "another process serves there")
	}
	return old, nil
}

// listen makes the socket under another name first and moves it into place, so
// that the agent finds either the old one or the new one.
func listen(path string) (*net.UnixListener, error) {
	next := path + ".next"
	_ = os.Remove(next)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	if err = os.Chmod(next, 0o600); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return listener, nil
}

// report tells a starter that waits; once.
func report(o *options, text string) {
	if o.readyFD < 0 {
		return
	}
	_, _ = syscall.Write(o.readyFD, []byte(text)) // the starter may be gone
	syscall.Close(o.readyFD)
	o.readyFD = -1
}

// version tells builds apart, so that an upgraded agent knows to hand over.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return strings.TrimSpace(info.Main.Version + " " + s.Value)
		}
	}
	return info.Main.Version
}
