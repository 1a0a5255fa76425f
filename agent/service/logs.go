package service

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/reconcile"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/agent/store"
	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

// Logs gives an instance's log as text, without the records' own framing. Of one
// that is gone it is what is kept of the last that had this name, or of the one
// with this uid.
func (s Instances) Logs(ctx context.Context, ref spec.Ref, o api.LogOptions) (api.Log, error) {
	object, err := s.Store.Get(ref)
	if fault.Is(err, fault.NotFound) {
		return s.keptLog(ctx, ref, o, err)
	}
	if err != nil {
		return api.Log{}, err
	}
	log, err := s.openLog(ctx, object.Metadata.UID, o)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Log{}, fault.New(fault.NotFound, "read the log of "+ref.String(), "it has not run yet").
			WithHint("gpuhost describe instance %s/%s", ref.Tenant, ref.Name)
	}
	return api.Log{ReadCloser: log}, err
}

// keptLog is the log of an instance that is gone. absent is the error where
// nothing is kept.
func (s Instances) keptLog(ctx context.Context, ref spec.Ref, o api.LogOptions, absent error) (api.Log, error) {
	gone, found, err := s.departure(ref)
	if err != nil {
		return api.Log{}, err
	}
	if !found {
		return api.Log{}, absent
	}
	o.Follow = false // nobody writes it any more
	log, err := s.openLog(ctx, gone.UID, o)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Log{}, absent
	}
	return api.Log{ReadCloser: log, DeletedAt: gone.At}, err
}

// departure is the event that told of the end of the last instance with this
// name or uid. What went before its tenant came into being was another tenant's,
// whatever it was called.
func (s Instances) departure(ref spec.Ref) (store.Event, bool, error) {
	tenant, err := s.Store.Get(spec.Ref{Kind: spec.KindTenant, Name: ref.Tenant})
	if fault.Is(err, fault.NotFound) {
		return store.Event{}, false, nil
	}
	if err != nil {
		return store.Event{}, false, err
	}
	events, err := s.Store.Events(0, 0)
	for _, e := range slices.Backward(events) {
		if e.At.Before(tenant.Metadata.CreatedAt) {
			break
		}
		if e.Reason == reconcile.ReasonDeleted && e.Object.Kind == spec.KindInstance && e.Object.Tenant == ref.Tenant &&
			(e.Object.Name == ref.Name || string(e.UID) == ref.Name) {
			return e, true, err
		}
	}
	return store.Event{}, false, err
}

func (s Instances) openLog(ctx context.Context, uid spec.UID, o api.LogOptions) (io.ReadCloser, error) {
	log, err := logfile.Open(s.Layout.LogDir(uid), logfile.Options{Since: o.Since, Tail: o.Tail, Follow: o.Follow})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	return &logText{ctx: ctx, cancel: cancel, log: log}, nil
}

// logText turns records into the text the tenant wrote.
type logText struct {
	ctx    context.Context // of the request that reads; Close ends it
	cancel context.CancelFunc
	log    *logfile.Reader
	rest   []byte // of the present record
}

// Read implements io.Reader.
func (t *logText) Read(p []byte) (int, error) {
	if len(t.rest) == 0 {
		entry, err := t.log.Next(t.ctx)
		if err != nil {
			return 0, err
		}
		t.rest = append(t.rest[:0], entry.Text...)
		if !entry.Partial {
			t.rest = append(t.rest, '\n')
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (t *logText) Close() error {
	t.cancel()
	return t.log.Close()
}
