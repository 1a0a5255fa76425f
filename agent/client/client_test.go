package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/frame"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served is a backend behind a real socket, with our uid as an operator.
func served(t *testing.T) (*apitest.Backend, *client.Client) {
	t.Helper()
	backend := apitest.New()
	groups := []uint32{uint32(os.Getegid())}
	address, stop, err := apitest.Serve(backend, api.Options{Peers: api.Peers{OperatorGroups: groups}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return backend, c
}

func train() *spec.Object {
	return &spec.Object{APIVersion: spec.APIVersion, Kind: spec.KindInstance,
		Metadata: spec.Metadata{Tenant: "acme", Name: "train-1"}, Spec: &spec.InstanceSpec{Image: "debian:12"}}
}

func TestNewRefuses(t *testing.T) {
	for host, kind := range map[string]fault.Kind{
		"https://host:1": fault.Unsupported, "http://host": fault.Invalid, "/run/sock": fault.Invalid, "unix://relative": fault.Invalid, "": fault.Invalid,
	} {
		if _, err := client.New(host); !fault.Is(err, kind) {
			t.Errorf("%q: %v, want %s", host, err, kind)
		}
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	backend, c := served(t)
	for _, kind := range []fault.Kind{fault.Invalid, fault.NotFound, fault.Conflict, fault.Busy, fault.Exhausted, fault.Unsupported,
		fault.NeedsReboot, fault.Temporary, fault.Forbidden, fault.Timeout, fault.Internal} {
		backend.Fail("Get", fault.New(kind, "look", "at it").WithHint("look away"))
		_, err := c.Get(t.Context(), train().Ref())
		known, ok := errors.AsType[*fault.Error](err)
		if !ok || known.Kind != kind || known.Error() != "look: at it" || known.Hint != "look away" {
			t.Errorf("%s came back as %#v", kind, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	c, err := client.New("unix://" + filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Status(t.Context())
	if !errors.Is(err, client.ErrUnreachable) || fault.HintOf(err) != "start it as root: gpuhost agent" {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's own error", err)
	}
}

func TestObjects(t *testing.T) {
	_, c := served(t)
	ctx := t.Context()
	result, err := c.Apply(ctx, api.ApplyRequest{Objects: []*spec.Object{train()}})
	if err != nil || len(result.Changes) != 1 {
		t.Fatalf("%+v %v", result, err)
	}
	got, err := c.Get(ctx, train().Ref())
	if err != nil || got.Metadata.UID != "a1b2c3d4" || got.Status.Phase != spec.PhaseRunning {
		t.Fatalf("%+v %v", got, err)
	}
	all, err := c.List(ctx, spec.KindInstance, "")
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v %v", all, err)
	}
	if _, err := c.Delete(ctx, train().Ref(), 9); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v, want conflict", err)
	}
	if _, err := c.Delete(ctx, train().Ref(), 1); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", ".", ".."} {
		if _, err := c.Get(ctx, spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: name}); !fault.Is(err, fault.Invalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestEventsResume(t *testing.T) {
	backend, c := served(t)
	for _, reason := range []string{"One", "Two", "Three"} {
		backend.AddEvent(api.Event{Reason: reason})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var seen []string
	err := c.FollowEvents(ctx, api.EventQuery{After: 1}, func(e api.Event) error {
		seen = append(seen, e.Reason)
		if e.Reason == "Three" {
			backend.AddEvent(api.Event{Reason: "Four"})
		}
		if e.Reason == "Four" {
			cancel()
		}
		return nil
	}, func() { t.Error("it was lost") })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if diff := cmp.Diff([]string{"Two", "Three", "Four"}, seen); diff != "" {
		t.Error(diff)
	}
}

func TestACutStreamIsNotTakenForTheWhole(t *testing.T) {
	backend, c := served(t)
	backend.AddEvent(api.Event{Reason: "One"})
	backend.Fail("FollowEvents", errors.New("disk"))
	ctx, cancel := context.WithCancel(t.Context())
	var seen []string
	err := c.FollowEvents(ctx, api.EventQuery{}, func(e api.Event) error {
		if seen = append(seen, e.Reason); len(seen) == 2 {
			cancel()
		}
		return nil
	}, func() {
		backend.Fail("FollowEvents", nil)
		backend.AddEvent(api.Event{Reason: "Two"})
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"One", "Two"}, seen); diff != "" {
		t.Error(diff)
	}
}

// restarting is a client of an agent that another takes the place of.
func restarting(t *testing.T, backend *apitest.Backend) (c *client.Client, restart func() error) {
	t.Helper()
	serve := func() (string, func() error) {
		address, stop, err := apitest.Serve(backend, api.Options{Peers: api.Peers{OperatorGroups: []uint32{uint32(os.Getegid())}}})
		if err != nil {
			t.Fatal(err)
		}
		return address, stop
	}
	address, stop := serve()
	current := make(chan string, 1)
	current <- address
	c = client.NewWithDialer(address, func(ctx context.Context) (net.Conn, error) {
		now := <-current
		current <- now
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(now, "unix://"))
	})
	t.Cleanup(func() {
		c.Close()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return c, func() error {
		err := stop()
		address, stop = serve()
		<-current
		current <- address
		return err
	}
}

// TestEventsOutliveAgent restarts the agent between any two events.
func TestEventsOutliveAgent(t *testing.T) {
	backend := apitest.New()
	c, restart := restarting(t, backend)
	reasons := []string{"One", "Two", "Three", "Four"}
	backend.AddEvent(api.Event{Reason: reasons[0]})
	ctx, cancel := context.WithCancel(t.Context())
	var seen []string
	losses := 0
	err := c.FollowEvents(ctx, api.EventQuery{}, func(e api.Event) error {
		if seen = append(seen, e.Reason); len(seen) == len(reasons) {
			cancel()
			return nil
		}
		err := restart()
		backend.AddEvent(api.Event{Reason: reasons[len(seen)]})
		return err
	}, func() { losses++ })
	if !errors.Is(err, context.Canceled) || losses != 3 {
		t.Errorf("%v after %d losses, want 3", err, losses)
	}
	if diff := cmp.Diff(reasons, seen); diff != "" {
		t.Error(diff)
	}
}

// TestWatchOutlivesAgent restarts the agent between two steps of a change.
func TestWatchOutlivesAgent(t *testing.T) {
	backend := apitest.New()
	backend.Hold(true)
	c, restart := restarting(t, backend)
	result, err := c.Apply(t.Context(), api.ApplyRequest{Objects: []*spec.Object{train()}})
	if err != nil {
		t.Fatal(err)
	}
	var states []api.ChangeState
	restarted := false
	err = c.WatchChange(t.Context(), result.Changes[0].ID, func(change api.Change) error {
		states = append(states, change.State)
		if restarted {
			backend.Hold(false)
			return nil
		}
		restarted = true
		return restart()
	})
	if err != nil || states[len(states)-1] != api.ChangeDone {
		t.Errorf("%v, states %v", err, states)
	}
}

func TestLogs(t *testing.T) {
	backend, c := served(t)
	backend.Log = "one\ntwo\n"
	backend.Put(train())
	read := func(o api.LogOptions) string {
		log, err := c.Logs(t.Context(), train().Ref(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		text, err := io.ReadAll(log)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := read(api.LogOptions{}); got != "one\ntwo\n" {
		t.Errorf("%q", got)
	}
	if got := read(api.LogOptions{Tail: 1}); got != "two\n" {
		t.Errorf("%q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	log, err := c.Logs(ctx, train().Ref(), api.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, len("one\ntwo\n"))
	if _, err := io.ReadFull(log, part); err != nil || string(part) != "one\ntwo\n" {
		t.Errorf("%q %v: followed text must come at once", part, err)
	}
	cancel()
	log.Close()
}

func TestExec(t *testing.T) {
	backend, c := served(t)
	backend.Put(train())
	stream, err := c.Exec(t.Context(), train().Ref(), api.ExecRequest{Command: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	const text = "some\x00bytes"
	out := frame.NewWriter(stream)
	if err := errors.Join(out.Data(frame.Stdin, []byte(text)), out.CloseStdin()); err != nil {
		t.Fatal(err)
	}
	in := frame.NewReader(stream)
	f, err := in.Next()
	if err != nil || f.Type != frame.Stdout || string(f.Payload) != text {
		t.Fatalf("%+v %v", f, err)
	}
	f, err = in.Next()
	if exit, exitErr := f.Exit(); err != nil || exitErr != nil || exit.Code != 0 {
		t.Errorf("%+v %v %v", f, err, exitErr)
	}
	if _, err := in.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%v after the exit, want the end", err)
	}
}

func TestExecRefused(t *testing.T) {
	backend, c := served(t)
	if _, err := c.Exec(t.Context(), train().Ref(), api.ExecRequest{Command: []string{"cat"}}); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v, want not found", err)
	}
	backend.Put(train())
	backend.Fail("Exec", fault.New(fault.Busy, "exec", "it is stopping"))
	if _, err := c.Exec(t.Context(), train().Ref(), api.ExecRequest{Command: []string{"cat"}}); !fault.Is(err, fault.Busy) {
		t.Errorf("%v, want busy", err)
	}
	if _, err := c.Exec(t.Context(), train().Ref(), api.ExecRequest{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v, want invalid", err)
	}
}

func TestImportStreams(t *testing.T) {
	_, c := served(t)
	big := bytes.Repeat([]byte("x"), 9<<20) // longer than any JSON body may be
	for _, size := range []int64{int64(len(big)), -1} {
		images, err := c.ImportImage(t.Context(), api.ImportRequest{Tenant: "acme", Name: "big", Size: size}, bytes.NewReader(big))
		if err != nil || len(images) != 1 || images[0].Bytes != int64(len(big)) {
			t.Errorf("size %d: %+v %v", size, images, err)
		}
	}
}
