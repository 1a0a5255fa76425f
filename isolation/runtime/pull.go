package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/isolation"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pull fetches an image from its registry and unpacks it. A pull that cannot
// fit is refused as soon as the manifest has said how much comes.
func (c *Client) pull(ctx context.Context, req isolation.ImageRequest, name string, report plan.Report) (_ isolation.Image, err error) {
	what := "pull image " + name
	ctx, release, err := c.leased(c.tenant(ctx, req.Tenant))
	if err != nil {
		return isolation.Image{}, wrap(what, err)
	}
	defer func() { release(err) }()
	login := &login{host: registryOf(name), ask: func() (string, string, error) {
		if req.Login == nil {
			return "", "", nil
		}
		return req.Login(ctx)
	}}
	metered := newMeter(report, 0)
	fetched, err := c.containerd.Fetch(ctx, name,
		containerd.WithResolver(meteredResolver{c.resolver(login), metered}),
		containerd.WithPlatformMatcher(platforms.Default()),
		containerd.WithImageHandlerWrapper(func(h images.Handler) images.Handler { return c.measure(what, metered, h) }),
	)
	if err != nil {
		return isolation.Image{}, login.fault(what, err)
	}
	metered.finish("unpacking")
	return c.unpack(ctx, req.Ref, containerd.NewImage(c.containerd, fetched))
}

// leased keeps blobs and layers from being collected until they are an image's.
// Release them with what came of it: after an error, a pull that was given up
// included, what is of no image is collected before release returns.
func (c *Client) leased(ctx context.Context) (_ context.Context, release func(err error), err error) {
	ctx, _, err = c.containerd.WithLease(ctx)
	if err != nil {
		return ctx, nil, err
	}
	id, _ := leases.FromContext(ctx)
	return ctx, func(err error) {
		var how []leases.DeleteOpt
		if err != nil {
			how = append(how, leases.SynchronousDelete)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releasePatience)
		defer cancel()
		_ = c.containerd.LeasesService().Delete(ctx, leases.Lease{ID: id}, how...) // it expires in a day
	}, nil
}

// releasePatience bounds how long what was given up may take to be collected.
const releasePatience = 30 * time.Second

// resolver speaks TLS with the system's roots, and plain HTTP with loopback alone.
func (c *Client) resolver(login *login) remotes.Resolver {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = dialer(c.config.LocalRegistries).DialContext
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	transport.ResponseHeaderTimeout = 30 * time.Second
	client := &http.Client{Transport: transport}
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(
			docker.WithPlainHTTP(docker.MatchLocalhost),
			docker.WithClient(client),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(login.credentials))),
		),
	})
}

// measure adds up what a manifest's layers weigh, and refuses it when the disk
// cannot hold that.
func (c *Client) measure(what string, m *meter, next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, desc imagespec.Descriptor) ([]imagespec.Descriptor, error) {
		children, err := next.Handle(ctx, desc)
		if err != nil || !images.IsManifestType(desc.MediaType) {
			return children, err
		}
		var total int64
		for _, child := range children {
			if _, err := c.containerd.ContentStore().Info(ctx, child.Digest); errdefs.IsNotFound(err) {
				total += child.Size
			}
		}
		m.expect(total)
		return children, c.fits(what, total)
	})
}

// login asks for the credentials of one registry, once, and keeps them out of
// what is said about a failure.
type login struct {
	host string
	ask  func() (username, password string, err error)

	once               sync.Once
	username, password string
	err                error
}

// credentials gives them to the registry of the image alone: a redirect to
// another host gets none.
func (l *login) credentials(host string) (string, string, error) {
	if host != l.host {
		return "", "", nil
	}
	l.once.Do(func() { l.username, l.password, l.err = l.ask() })
	return l.username, l.password, l.err
}

// fault gives a failed pull its kind. What is not our own text is rewritten and the
// cause not kept: URLs of token services carry user names in their query.
func (l *login) fault(what string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return fault.Wrap(known.Kind, what, known)
	}
	if l.err != nil {
		return fault.Wrap(fault.Invalid, what, l.err)
	}
	text := queries.ReplaceAllString(err.Error(), "")
	if l.password != "" {
		text = strings.ReplaceAll(text, l.password, "(redacted)")
	}
	made := fault.New(pullKind(err), what, "%s", text)
	if made.Kind == fault.Forbidden {
		return made.WithHint("set pullSecret to a secret with username and password")
	}
	return made
}

var queries = regexp.MustCompile(`\?[^\s"]*`)

func pullKind(err error) fault.Kind {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return fault.Forbidden
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		return fault.Forbidden
	case errdefs.IsNotFound(err):
		return fault.NotFound
	case errdefs.IsInvalidArgument(err), errdefs.IsNotImplemented(err):
		return fault.Invalid
	}
	return fault.Temporary
}
