package nvml

import (
	"context"
	"errors"
	"log/slog"
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
	HungFor       time.Duration // how long a GPU that hung is left out; 1 min when zero
	Log           *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Deadline == 0 {
		o.Deadline = 2 * time.Second
	}
	if o.StartDeadline == 0 {
		o.StartDeadline = time.Minute
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
	Hung     int        // calls that passed their deadline, each with an abandoned helper
	Restarts int        // helpers started after the first
	HungGPUs []gpu.UUID // left out of samples at present
	PID      int        // of the present helper, 0 when there is none
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
	closed  bool
	known   []gpu.UUID
	hung    map[gpu.UUID]time.Time
	stats   Stats
}

// Start runs the helper and returns once NVML in it is initialised. Without a
// driver on the host that is an unsupported fault.
func Start(ctx context.Context, o Options) (*Client, error) {
	o = o.withDefaults()
	p, err := spawn(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &Client{options: o, turn: make(chan *state, 1)}
	c.turn <- &state{process: p, hung: map[gpu.UUID]time.Time{}}
	return c, nil
}

// Inventory lists the GPUs and how they are linked.
func (c *Client) Inventory(ctx context.Context) (gpu.Inventory, error) {
	s, err := c.take(ctx)
	if err != nil {
		return gpu.Inventory{}, err
	}
	defer c.put(s)
	return c.inventory(ctx, s)
}

func (c *Client) inventory(ctx context.Context, s *state) (gpu.Inventory, error) {
	r, err := c.ask(ctx, s, Request{Method: MethodInventory})
	if err != nil {
		return gpu.Inventory{}, err
	}
	if r.Inventory == nil {
		return gpu.Inventory{}, fault.New(fault.Internal, "read GPU inventory", "the helper's answer has none")
	}
	s.known = s.known[:0]
	for _, d := range r.Inventory.Devices {
		s.known = append(s.known, d.UUID)
	}
	return *r.Inventory, nil
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
	for _, id := range s.known {
		sample, err := c.sample(ctx, s, id)
		switch {
		case ctx.Err() != nil:
			return nil, fault.Wrap(fault.Timeout, "read GPU samples", ctx.Err())
		case err != nil:
			c.options.Log.Warn("GPU not read", "gpu", id, "error", err)
		case sample != nil:
			samples = append(samples, *sample)
		}
	}
	return samples, nil
}

// sample reads one GPU, or nothing while it is left out.
func (c *Client) sample(ctx context.Context, s *state, id gpu.UUID) (*gpu.Sample, error) {
	if since, hung := s.hung[id]; hung && time.Since(since) < c.options.HungFor {
		return nil, nil
	}
	delete(s.hung, id)
	r, err := c.ask(ctx, s, Request{Method: MethodSample, GPU: id})
	if fault.Is(err, fault.Timeout) && ctx.Err() == nil {
		s.hung[id] = time.Now()
	}
	return r.Sample, err
}

// ask puts a question to the helper, to a new one if there is none. One that
// ended meanwhile is replaced once; one that hangs is not asked again. The
// caller's own deadline does not cut a call short: that would look like a hang.
func (c *Client) ask(ctx context.Context, s *state, q Request) (Response, error) {
	for try := 0; ; try++ {
		if err := c.ensure(ctx, s); err != nil {
			return Response{}, err
		}
		r, err := s.process.call(q, c.options.Deadline)
		var broken *processError
		if !errors.As(err, &broken) {
			return r, err
		}
		s.process.abandon()
		s.process = nil
		if broken.hung {
			s.stats.Hung++
			c.options.Log.Error("NVML hangs; helper abandoned", "method", q.Method, "gpu", q.GPU)
		}
		if broken.hung || try > 0 {
			return Response{}, err
		}
	}
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
	s.stats.Restarts++
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
	for id := range s.hung {
		out.HungGPUs = append(out.HungGPUs, id)
	}
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
