// Package client is the typed client of the agent's API, and the only way the
// command line reaches the agent.
//
//	c, err := client.New("unix:///run/gpuhost/gpuhost.sock")
//	o, err := c.Get(ctx, spec.Ref{Kind: spec.KindInstance, Tenant: "acme", Name: "train-1"})
//
// An error of the agent comes back as the *fault.Error it was, so that exit
// codes follow its kind; an agent that cannot be reached is [ErrUnreachable].
//
// Neighbours: agent/api is the other end.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/fault"
)

// DefaultHost is where the agent of a packaged host listens.
const DefaultHost = "unix:///run/gpuhost/gpuhost.sock"

// ErrUnreachable is in the chain of every error that means that no agent
// answered.
var ErrUnreachable = errors.New("no agent answers")

// maxAnswer bounds what is read of an answer that is no stream.
const maxAnswer = 256 << 20 // bytes

// Client speaks to one agent. It is safe for several goroutines.
type Client struct {
	host string
	http *http.Client
}

// New makes a client for "unix:///path". It connects on the first request.
func New(host string) (*Client, error) {
	what := "host " + host
	scheme, rest, ok := strings.Cut(host, "://")
	switch {
	case ok && scheme == "https":
		return nil, fault.New(fault.Unsupported, what, "access over the network is not built yet").
			WithHint("use %s", DefaultHost)
	case !ok || scheme != "unix":
		return nil, fault.New(fault.Invalid, what, "is no unix:// address").WithHint("for example %s", DefaultHost)
	case !strings.HasPrefix(rest, "/"):
		return nil, fault.New(fault.Invalid, what, "the path is not absolute").WithHint("for example %s", DefaultHost)
	}
	return NewWithDialer(host, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", rest)
	}), nil
}

// NewWithDialer makes a client over connections that dial makes; host names the
// agent in messages.
func NewWithDialer(host string, dial func(context.Context) (net.Conn, error)) *Client {
	transport := &http.Transport{
		DialContext:  func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConns: 2,
	}
	return &Client{host: host, http: &http.Client{Transport: transport}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one request to be sent.
type request struct {
	method string
	path   string // escaped
	query  url.Values
	header http.Header
	body   io.Reader
	length int64 // of body, -1 when unknown
}

// at joins escaped path elements below /v1.
func at(elements ...string) string {
	path := "/v1"
	for _, e := range elements {
		path += "/" + url.PathEscape(e)
	}
	return path
}

// send does the request and gives the answer of a success; the caller closes
// its body. Every other answer becomes an error.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	// The host part is never resolved: the dialler knows the socket.
	full := "http://gpuhost" + r.path
	if len(r.query) > 0 {
		full += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, full, r.body)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, r.method+" "+r.path, err)
	}
	if r.header != nil {
		req.Header = r.header
	}
	if r.body != nil && r.length != 0 {
		req.ContentLength = r.length
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, decodeFault(r, resp)
}

// unreachable says why no agent answered. A context that ended is its own reason.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the made-up URL
	}
	if known, ok := errors.AsType[*fault.Error](err); ok {
		return known // the reader of a request body failed: not the agent's absence
	}
	what := "reach the agent at " + c.host
	if errors.Is(err, fs.ErrPermission) {
		return fault.Wrap(fault.Forbidden, what, err)
	}
	return fault.New(fault.Temporary, what, "%w", &unreachable{err}).
		WithHint("start it as root: gpuhost agent")
}

// unreachable keeps the cause in the chain and out of the message: "connection
// refused" on a socket's path helps nobody.
type unreachable struct{ cause error }

func (u *unreachable) Error() string        { return ErrUnreachable.Error() }
func (u *unreachable) Is(target error) bool { return target == ErrUnreachable }
func (u *unreachable) Unwrap() error        { return u.cause }

func decodeFault(r request, resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var f api.Fault
	if err == nil && json.Unmarshal(text, &f) == nil && f.Code != "" {
		return f.Err()
	}
	return fault.New(fault.Internal, r.method+" "+r.path, "the agent answered %s", resp.Status)
}

// do sends in as JSON and decodes the answer.
func do[Out any](ctx context.Context, c *Client, r request, in any) (Out, error) {
	var out Out
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return out, fault.Wrap(fault.Internal, "encode request", err)
		}
		r.body = bytes.NewReader(text)
		r.setHeader("Content-Type", "application/json")
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&out)
	if err == nil {
		return out, nil
	}
	if malformed(err) {
		return out, fault.Wrap(fault.Internal, "read the agent's answer", err)
	}
	return out, c.unreachable(ctx, err)
}

// malformed tells an answer that makes no sense from one that was cut.
func malformed(err error) bool {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, mismatch := errors.AsType[*json.UnmarshalTypeError](err)
	_, refused := errors.AsType[*fault.Error](err) // by the decoder of objects
	return syntax || mismatch || refused
}

func (r *request) setHeader(key, value string) {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Set(key, value)
}

// items is do for answers that are lists.
func items[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	list, err := do[api.List[T]](ctx, c, request{method: http.MethodGet, path: path, query: query}, nil)
	return list.Items, err
}

// get is do for answers that are one thing.
func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return do[T](ctx, c, request{method: http.MethodGet, path: path}, nil)
}

// stream calls each for every JSON value of an NDJSON answer. An answer that
// was cut is ErrUnreachable; one that ended is nil.
func stream[T any](ctx context.Context, c *Client, path string, query url.Values, each func(T) error) error {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return err
	}
	return decodeStream(ctx, c, resp, each)
}

func decodeStream[T any](ctx context.Context, c *Client, resp *http.Response, each func(T) error) error {
	defer resp.Body.Close()
	decoder := json.NewDecoder(resp.Body)
	for {
		var item T
		switch err := decoder.Decode(&item); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return c.unreachable(ctx, fmt.Errorf("read stream: %w", err))
		}
		if err := each(item); err != nil {
			return err
		}
	}
}

func tenantQuery(tenant string) url.Values {
	if tenant == "" {
		return nil
	}
	return url.Values{"tenant": {tenant}}
}

func ifMatch(generation uint64) http.Header {
	if generation == 0 {
		return nil
	}
	return http.Header{"If-Match": {`"` + strconv.FormatUint(generation, 10) + `"`}}
}
