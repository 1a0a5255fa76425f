package nvml

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/drivers/gpu"
)

// Options say how to run the helper.
type Options struct {
	Path          string
	Args          []string
	Deadline      time.Duration // of one call; 2 s when zero
	StartDeadline time.Duration // until hello; 60 s when zero: NVML takes 25 s on 8 GPUs without persistence
	FirstDeadline time.Duration // of a helper's first call; 10 s when zero: nothing of it is in the host's memory yet
	HungFor       time.Duration // how long a GPU that hung is left out, twice as long each time; 1 min when zero
	Log           *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Deadline == 0 {
		o.Deadline = 2 * time.Second
	}
	if o.StartDeadline == 0 {
		o.StartDeadline = time.Minute
	}
	if o.FirstDeadline == 0 {
		o.FirstDeadline = 10 * time.Second
	}
	if o.HungFor == 0 {
		o.HungFor = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stats are what supervision counted.
type Stats struct {
	Hung     int   // calls that passed their deadline, each with an abandoned helper
	Restarts int   // helpers started after the first
	HungGPUs []int // NVML indices, left out at present
	PID      int   // of the present helper, 0 when there is none
}

// Client asks one helper at a time, and replaces it when it hangs or ends. It is
// safe for concurrent use; calls are serialised, as NVML wants them.
type Client struct {
	options Options
	turn    chan *state // holds the one state while nobody uses it
}

// state belongs to whoever took it from turn.
type state struct {
	process *process // nil when there is none
	started bool
	closed  bool
	known   []gpu.Device // of the last inventory
	hung    map[int]hang // by index
	stats   Stats
}

// hang is when a GPU that hung is asked again, and how long that wait is.
type hang struct {
	until time.Time
	wait  time.Duration
}

// longestHang bounds the wait to this many times the first.
const longestHang = 8

// Open makes a client without a helper yet: each call tries to start one. It is
// for a host whose driver may come later.
func Open(o Options) *Client {
	c := &Client{options: o.withDefaults(), turn: make(chan *state, 1)}
	c.turn <- &state{hung: map[int]hang{}}
	return c
}

// Start runs the helper and returns once NVML in it is initialised. Without a
// driver on the host that is an unsupported fault.
func Start(ctx context.Context, o Options) (*Client, error) {
	c := Open(o)
	s := <-c.turn
	defer c.put(s)
	if err := c.ensure(ctx, s); err != nil {
		return nil, err
	}
	return c, nil
}

// Inventory lists the GPUs and how they are linked. A GPU that hangs or has
// fallen off the bus is not in it.
func (c *Client) Inventory(ctx context.Context) (gpu.Inventory, error) {
	s, err := c.take(ctx)
	if err != nil {
		return gpu.Inventory{}, err
	}
	defer c.put(s)
	return c.inventory(ctx, s)
}

func (c *Client) inventory(ctx context.Context, s *state) (gpu.Inventory, error) {
	r, err := c.ask(ctx, s, Request{Method: MethodHost})
	switch {
	case err != nil:
		return gpu.Inventory{}, err
	case r.Host == nil:
		return gpu.Inventory{}, fault.New(fault.Internal, "read GPU inventory", "the helper's answer has none")
	}
	inv := gpu.Inventory{DriverVersion: r.Host.DriverVersion, CUDAVersion: r.Host.CUDAVersion}
	err = c.each(ctx, s, count(r.Host.GPUs), func(i int) error {
		r, err := c.askGPU(ctx, s, Request{Method: MethodDevice, Index: i})
		if err == nil && r.Device != nil {
			inv.Devices = append(inv.Devices, *r.Device)
		}
		return err
	})
	if err != nil {
		return gpu.Inventory{}, err
	}
	s.known = inv.Devices
	err = c.each(ctx, s, indices(s.known), func(i int) error {
		r, err := c.askGPU(ctx, s, Request{Method: MethodLinks, Index: i, Others: above(s.known, i)})
		inv.Links = append(inv.Links, r.Links...)
		return err
	})
	return inv, err
}

func count(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func indices(devices []gpu.Device) []int {
	var all []int
	for _, d := range devices {
		all = append(all, d.Index)
	}
	return all
}

// above are the other ends of the links that are asked of GPU i.
func above(devices []gpu.Device, i int) []int {
	return slices.DeleteFunc(indices(devices), func(other int) bool { return other <= i })
}

// Samples measures every GPU. One that does not answer in time, or is gone, is
// missing in the result; the others are there.
func (c *Client) Samples(ctx context.Context) ([]gpu.Sample, error) {
	s, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	defer c.put(s)
	if len(s.known) == 0 {
		if _, err := c.inventory(ctx, s); err != nil {
			return nil, err
		}
	}
	var samples []gpu.Sample
	err = c.each(ctx, s, indices(s.known), func(i int) error {
		r, err := c.askGPU(ctx, s, Request{Method: MethodSample, Index: i})
		if err == nil && r.Sample != nil {
			samples = append(samples, *r.Sample)
		}
		return err
	})
	return samples, err
}

// each goes through GPUs and leaves out those that hang. That one GPU could not
// be read is logged and no error of the whole.
func (c *Client) each(ctx context.Context, s *state, gpus []int, read func(i int) error) error {
	for _, i := range gpus {
		if time.Now().Before(s.hung[i].until) {
			continue
		}
		err := read(i)
		if ctx.Err() != nil {
			return fault.Wrap(fault.Timeout, "read GPUs", ctx.Err())
		}
		if s.process == nil && !fault.Is(err, fault.Timeout) {
			return err // no helper can be had
		}
		if err != nil {
			c.options.Log.Warn("GPU not read", "index", i, "error", err)
		}
	}
	return nil
}

// askGPU remembers which GPU hung.
func (c *Client) askGPU(ctx context.Context, s *state, q Request) (Response, error) {
	hung := s.stats.Hung
	r, err := c.ask(ctx, s, q)
	if s.stats.Hung == hung {
		delete(s.hung, q.Index)
		return r, err
	}
	wait := min(max(2*s.hung[q.Index].wait, c.options.HungFor), longestHang*c.options.HungFor)
	s.hung[q.Index] = hang{until: time.Now().Add(wait), wait: wait}
	return r, err
}

// ask puts a question to the helper, to a new one if there is none. One that
// ended meanwhile is replaced once; one that hangs is not asked again. The
// caller's own deadline does not cut a call short: that would look like a hang.
func (c *Client) ask(ctx context.Context, s *state, q Request) (Response, error) {
	for try := 0; ; try++ {
		if err := c.ensure(ctx, s); err != nil {
			return Response{}, err
		}
		r, err := s.process.call(q, c.deadline(s.process))
		var broken *processError
		if !errors.As(err, &broken) {
			return r, err
		}
		s.process.abandon()
		s.process = nil
		if broken.hung {
			s.stats.Hung++
			c.options.Log.Error("NVML hangs; helper abandoned", "method", q.Method, "index", q.Index)
		}
		if broken.hung || try > 0 {
			return Response{}, err
		}
	}
}

// deadline is how long the next call may take.
func (c *Client) deadline(p *process) time.Duration {
	if p.lastID == 0 {
		return max(c.options.Deadline, c.options.FirstDeadline)
	}
	return c.options.Deadline
}

func (c *Client) ensure(ctx context.Context, s *state) error {
	if s.closed {
		return fault.New(fault.Temporary, "ask NVML helper", "it is shut down")
	}
	if s.process != nil {
		return nil
	}
	p, err := spawn(ctx, c.options)
	if err != nil {
		return err
	}
	s.process = p
	if s.started {
		s.stats.Restarts++
	}
	s.started = true
	return nil
}

// Stats says what supervision has counted so far.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	s, err := c.take(ctx)
	if err != nil {
		return Stats{}, err
	}
	defer c.put(s)
	out := s.stats
	out.HungGPUs = slices.Sorted(maps.Keys(s.hung))
	if s.process != nil {
		out.PID = s.process.cmd.Process.Pid
	}
	return out, nil
}

// Close lets the helper shut NVML down, so that the agent is no holder of the
// driver. It waits for one deadline at most; later calls fail.
func (c *Client) Close() error {
	s := <-c.turn
	defer c.put(s)
	if s.process != nil {
		s.process.close(c.options.Deadline)
	}
	s.process, s.closed = nil, true
	return nil
}

func (c *Client) take(ctx context.Context) (*state, error) {
	select {
	case s := <-c.turn:
		return s, nil
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Timeout, "wait for NVML", ctx.Err())
	}
}

func (c *Client) put(s *state) { c.turn <- s }
