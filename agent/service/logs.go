package service

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation/warden/logfile"
)

// Logs gives an instance's log as text, without the records' own framing.
func (s Instances) Logs(ctx context.Context, ref spec.Ref, o api.LogOptions) (io.ReadCloser, error) {
	object, err := s.Store.Get(ref)
	if err != nil {
		return nil, err
	}
	log, err := logfile.Open(s.Layout.LogDir(object.Metadata.UID), logfile.Options{Since: o.Since, Tail: o.Tail, Follow: o.Follow})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "read the log of "+ref.String(), "it has not run yet").
			WithHint("gpuhost describe instance %s/%s", ref.Tenant, ref.Name)
	}
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
