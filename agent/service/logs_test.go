package service

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

// logs is a host with instances that were and are.
type logs struct {
	*testing.T
	now time.Time
	Instances
}

func newLogs(t *testing.T) *logs {
	l := &logs{T: t, now: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)}
	s, err := store.Open(filepath.Join(t.TempDir(), "state.db"), store.Options{
		Now: func() time.Time { return l.now }, BootID: "boot", Key: make([]byte, 32), Volatile: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	l.Instances = Instances{Store: s, Layout: isolation.Paths{Logs: t.TempDir()}}
	return l
}

// create stores an object an hour later, and lets an instance write its name's text.
func (l *logs) create(o *spec.Object, text string) spec.UID {
	l.Helper()
	l.now = l.now.Add(time.Hour)
	applied, err := l.Store.Apply(l.Context(), spec.SourceAPI, []*spec.Object{o}, store.ApplyOptions{})
	if err != nil {
		l.Fatal(err)
	}
	uid := applied[0].Object.Metadata.UID
	if text == "" {
		return uid
	}
	dir := l.Layout.LogDir(uid)
	entry := logfile.Entry{Time: l.now, Stream: "stdout", Text: []byte(text)}
	if err := os.Mkdir(dir, 0o700); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "00000001.log"), entry.Append(nil), 0o600); err != nil {
		l.Fatal(err)
	}
	return uid
}

func (l *logs) remove(uid spec.UID) {
	l.Helper()
	l.now = l.now.Add(time.Hour)
	o, err := l.Store.GetUID(uid)
	if err != nil {
		l.Fatal(err)
	}
	if err := l.Store.Remove(uid); err != nil {
		l.Fatal(err)
	}
	if o.Kind != spec.KindInstance {
		return
	}
	err = l.Store.AppendEvent(store.Event{At: l.now, Reason: reconcile.ReasonDeleted, Object: o.Ref(), UID: uid})
	if err != nil {
		l.Fatal(err)
	}
}

// read gives the log of a name, or the kind of the error.
func (l *logs) read(tenant, name string) (text string, gone bool) {
	l.Helper()
	log, err := l.Logs(l.Context(), spec.Ref{Kind: spec.KindInstance, Tenant: tenant, Name: name}, api.LogOptions{})
	if err != nil {
		return string(fault.KindOf(err)), false
	}
	defer log.Close()
	all, err := io.ReadAll(log)
	if err != nil {
		l.Fatal(err)
	}
	return string(all), !log.DeletedAt.IsZero()
}

func (l *logs) want(tenant, name, text string, gone bool) {
	l.Helper()
	if got, is := l.read(tenant, name); got != text || is != gone {
		l.Errorf("the log of %s/%s is %q, gone: %t; want %q, %t", tenant, name, got, is, text, gone)
	}
}

func server(tenant, name string) *spec.Object {
	return &spec.Object{Kind: spec.KindInstance, Metadata: spec.Metadata{Tenant: tenant, Name: name}, Spec: &spec.InstanceSpec{Image: "debian"}}
}

func customer(name string) *spec.Object {
	return &spec.Object{Kind: spec.KindTenant, Metadata: spec.Metadata{Name: name}, Spec: &spec.TenantSpec{}}
}

func TestTheLogOfADeletedInstance(t *testing.T) {
	l := newLogs(t)
	acme := l.create(customer("acme"), "")
	l.create(customer("other"), "")
	l.want("acme", "job", "not_found", false)
	first := l.create(server("acme", "job"), "first")
	l.want("acme", "job", "first\n", false)
	l.remove(first)
	l.want("acme", "job", "first\n", true)
	l.want("other", "job", "not_found", false)
	l.want("other", string(first), "not_found", false)

	second := l.create(server("acme", "job"), "second")
	l.want("acme", "job", "second\n", false)
	l.want("acme", string(first), "first\n", true)
	l.remove(second)
	l.want("acme", "job", "second\n", true)

	l.remove(acme)
	l.want("acme", "job", "not_found", false)
	l.create(customer("acme"), "") // somebody else's, by chance of that name
	l.want("acme", "job", "not_found", false)
	l.want("acme", string(first), "not_found", false)

	if err := os.RemoveAll(l.Layout.LogDir(second)); err != nil { // after a day
		t.Fatal(err)
	}
	l.want("acme", "job", "not_found", false)
}
