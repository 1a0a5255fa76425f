package runtime

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/gpuhost/gpuhost/agent/plan"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// reportEvery keeps progress from costing more than the work.
const reportEvery = 100 * time.Millisecond

// meter counts bytes and reports them now and then.
type meter struct {
	mu       sync.Mutex
	report   plan.Report
	progress plan.Progress
	last     time.Time
}

func newMeter(report plan.Report, total int64) *meter {
	if report == nil {
		report = func(plan.Progress) {}
	}
	return &meter{report: report, progress: plan.Progress{Total: total, Unit: "bytes"}}
}

// expect says that so many more bytes are to come.
func (m *meter) expect(n int64) {
	m.update(func(p *plan.Progress) { p.Total += n }, true)
}

// finish says that all bytes are there and what is done with them now.
func (m *meter) finish(next string) {
	m.update(func(p *plan.Progress) { p.Done, p.Note = p.Total, next }, true)
}

func (m *meter) add(n int64) {
	m.update(func(p *plan.Progress) { p.Done += n }, false)
}

func (m *meter) update(change func(*plan.Progress), now bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.progress)
	complete := m.progress.Total > 0 && m.progress.Done >= m.progress.Total
	if !now && !complete && time.Since(m.last) < reportEvery {
		return
	}
	m.last = time.Now()
	m.report(m.progress)
}

// reader counts what is read from r.
func (m *meter) reader(r io.Reader) io.Reader { return meteredReader{r, m} }

type meteredReader struct {
	io.Reader
	meter *meter
}

func (r meteredReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.meter.add(int64(n))
	return n, err
}

// meteredResolver counts what its fetchers fetch.
type meteredResolver struct {
	remotes.Resolver
	meter *meter
}

// Fetcher implements remotes.Resolver.
func (r meteredResolver) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	fetcher, err := r.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, desc imagespec.Descriptor) (io.ReadCloser, error) {
		body, err := fetcher.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		return meteredBody{r.meter.reader(body), body}, nil
	}), nil
}

type meteredBody struct {
	io.Reader
	io.Closer
}
