package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	snapshotter = "overlayfs"
	runtimeName = "io.containerd.runc.v2"
)

// Client talks to one containerd. It reconnects by itself; while containerd is
// away every call answers with a temporary fault.
type Client struct {
	config     Config
	containerd *containerd.Client
	// quiet swallows what the client library logs on its own account: it is said
	// again by the errors it returns, and without the URLs of token services.
	quiet *log.Entry

	mu      sync.Mutex
	watched map[instance]bool // tasks whose exit somebody waits for
	started chan instance     // tasks to wait for from now on
}

// What the room asks of containerd.
var (
	_ isolation.Images     = (*Client)(nil)
	_ isolation.Containers = (*Client)(nil)
	_ isolation.Tasks      = (*Client)(nil)
)

// instance names an instance among all tenants'.
type instance struct {
	tenant string
	uid    spec.UID
}

// Open makes a client. It does not wait for containerd: see [Client.Ready].
func Open(config Config) (*Client, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	// After a crash of containerd the next try must come soon: gRPC's own backoff
	// goes up to two minutes.
	connect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: 5 * time.Second,
	}
	kept := newBlobs()
	c, err := containerd.New(config.Socket(), containerd.WithExtraDialOpts([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(connect),
	}), containerd.WithDefaultRuntime(runtimeName), containerd.WithServices(containerd.WithContentStore(kept)))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, "open containerd", err)
	}
	kept.Store = proxy.NewContentStore(c.Conn())
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	return &Client{config: config, containerd: c, quiet: logrus.NewEntry(silent), watched: make(map[instance]bool), started: make(chan instance, 64)}, nil
}

// Close closes the connection. Nothing that runs notices.
func (c *Client) Close() error { return c.containerd.Close() }

// Ready waits until containerd answers, and refuses one that lacks what the
// isolation of tenants rests on.
func (c *Client) Ready(ctx context.Context) error {
	what := "reach containerd at " + c.config.Socket()
	for {
		serving, err := c.containerd.IsServing(ctx)
		if err == nil && serving {
			break
		}
		if !wait(ctx, firstPause) {
			return fault.Wrap(fault.Temporary, what, errors.Join(err, ctx.Err()))
		}
	}
	caps, err := c.containerd.GetSnapshotterCapabilities(ctx, snapshotter)
	if err != nil {
		return wrap(what, err)
	}
	for _, have := range caps {
		if have == "remap-ids" {
			return nil
		}
	}
	return fault.New(fault.Unsupported, what, "its overlayfs cannot map ids").
		WithHint("a kernel from 5.19 on is needed; see gpuhost doctor")
}

// tenant gives ctx the tenant's containerd namespace.
func (c *Client) tenant(ctx context.Context, tenant string) context.Context {
	return namespaces.WithNamespace(log.WithLogger(ctx, c.quiet), c.namespace(tenant))
}

func (c *Client) namespace(tenant string) string { return c.config.HostID + "-" + tenant }

func (c *Client) snapshots() snapshots.Snapshotter { return c.containerd.SnapshotService(snapshotter) }

// wrap gives an error of containerd its kind.
func wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsUnavailable(err):
		return fault.Wrap(fault.Temporary, what, fmt.Errorf("containerd is away: %w", err))
	case errdefs.IsNotFound(err):
		return fault.Wrap(fault.NotFound, what, err)
	case errdefs.IsDeadlineExceeded(err), errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Timeout, what, err)
	}
	return fault.Wrap(fault.Internal, what, err)
}
