package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Limits of one request.
const (
	maxBody       = 4 << 20
	maxFolderBody = 64 << 20 // apply, plan and verify take a whole folder
	maxHeader     = 32 << 10

	headerTimeout  = 5 * time.Second
	bodyTimeout    = time.Minute
	requestTimeout = 2 * time.Minute
	writeTimeout   = 30 * time.Second // of one answer, or of one item of a stream
	idleTimeout    = 2 * time.Minute
	drainTimeout   = 3 * time.Second
)

// Options are what the server needs besides its backend.
type Options struct {
	Peers   Peers
	Version Version
	// Metrics answers /metrics; nil where there are none.
	Metrics http.Handler
	// Ready says what the agent still waits for; nil error once it is ready.
	Ready func(context.Context) error
	Log   *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Version is what is running.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
}

// Server answers the API.
type Server struct {
	options Options
	backend Backend
	limiter *limiter
	mux     *http.ServeMux

	connected sync.Map // net.Conn to its caller's uid
}

// NewServer makes a server; [Server.Serve] lets it answer.
func NewServer(options Options, backend Backend) *Server {
	if options.Now == nil {
		options.Now = time.Now
	}
	s := &Server{options: options, backend: backend, limiter: newLimiter(options.Now), mux: http.NewServeMux()}
	for _, route := range Routes() {
		s.mux.Handle(route.Pattern(), s.handler(route))
	}
	s.mux.HandleFunc("/", s.limited(s.noRoute))
	return s
}

// callerKey finds the caller of a connection in a request's context.
type callerKey struct{}

// stoppingKey finds the context that ends when the server is told to stop. Only
// streams end with it; short requests may finish.
type stoppingKey struct{}

// Serve answers on the listener until ctx ends, then ends the streams and lets
// short requests finish for a moment. It closes the listener.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	base := context.WithValue(context.WithoutCancel(ctx), stoppingKey{}, ctx)
	server := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       s.identify,
		ConnState:         s.count,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fault.Wrap(fault.Internal, "serve the API", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-served
	return fault.Wrap(fault.Internal, "stop the API", err)
}

// identify asks the kernel once a connection. A peer it cannot name has no role.
// One that has too many connections loses this one.
func (s *Server) identify(ctx context.Context, conn net.Conn) context.Context {
	who := Caller{UID: overflowID, Name: "unknown"}
	if peer, err := peerOf(conn); err == nil {
		who = s.options.Peers.caller(peer)
	} else {
		s.options.Log.Warn("caller not identified", "error", err)
	}
	if s.limiter.connect(who.UID) {
		s.connected.Store(conn, who.UID)
	} else {
		_ = conn.Close() // the server's first read finds that out
	}
	return context.WithValue(ctx, callerKey{}, who)
}

// count notes that a connection is closed, or taken over by a request that counts
// itself.
func (s *Server) count(conn net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	if uid, counted := s.connected.LoadAndDelete(conn); counted {
		s.limiter.disconnect(uid.(uint32))
	}
}

// limited lets requests of one caller through at a bounded rate, so many at a time.
func (s *Server) limited(serve func(*call)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, _ := r.Context().Value(callerKey{}).(Caller)
		c := &call{w: &answer{ResponseWriter: w}, r: r, who: who}
		if !s.limiter.enter(who.UID) {
			s.tooMany(c)
			return
		}
		defer s.limiter.leave(who.UID)
		serve(c)
	}
}

// handler wraps a route with limits, access and error encoding.
func (s *Server) handler(route Route) http.Handler {
	return s.limited(func(c *call) {
		if err := route.authorise(c); err != nil {
			s.fail(c.w, c, err)
			return
		}
		size := route.bodySize(c.r)
		if !s.limiter.take(c.who.UID, size) {
			s.tooMany(c)
			return
		}
		defer s.limiter.give(c.who.UID, size)
		if counts(c.who.UID, size) {
			c.decoding = s.limiter.decoding
		}
		cancel := bound(c, route)
		defer cancel()
		defer s.recover(c)
		if err := route.serve(s, c); err != nil {
			s.fail(c.w, c, timedOut(c, route, err))
		}
	})
}

// bound sets size and time limits. A connection that refuses deadlines is a
// test's recorder; nothing there can hang.
func bound(c *call, route Route) context.CancelFunc {
	if route.in != nil {
		c.r.Body = http.MaxBytesReader(c.w.ResponseWriter, c.r.Body, route.bodyLimit()) // it looks for the server's own type
	}
	if route.stream {
		return boundStream(c)
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(requestTimeout + writeTimeout))
	ctx, cancel := context.WithTimeout(c.r.Context(), requestTimeout)
	c.r = c.r.WithContext(ctx)
	return cancel
}

// boundStream lets a stream last until either side ends it or the agent stops.
// A deadline that an earlier request left on the connection is taken away.
func boundStream(c *call) context.CancelFunc {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Time{})
	ctx, cancel := context.WithCancel(c.r.Context())
	c.r = c.r.WithContext(ctx)
	stopping, ok := ctx.Value(stoppingKey{}).(context.Context)
	if !ok {
		return cancel
	}
	unhook := context.AfterFunc(stopping, cancel)
	return func() {
		unhook()
		cancel()
	}
}

// recover turns a defect of one handler into an answer and a log line; the
// agent and its other callers go on. An answer that has begun is cut: its reader
// would take the error for a part of it.
func (s *Server) recover(c *call) {
	defect := recover()
	if defect == nil {
		return
	}
	if defect == http.ErrAbortHandler { // cuts the connection on purpose
		panic(defect)
	}
	err := fault.New(fault.Internal, c.r.Method+" "+c.r.URL.Path, "defect: %v", defect)
	if !c.w.begun {
		s.fail(c.w, c, err)
		return
	}
	s.logDefect(c, err)
	panic(http.ErrAbortHandler)
}

// timedOut names the limit when it was the cause.
func timedOut(c *call, route Route, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && errors.Is(c.r.Context().Err(), context.DeadlineExceeded) {
		return fault.New(fault.Timeout, route.Pattern(), "not done within %s", requestTimeout)
	}
	return err
}

func (s *Server) tooMany(c *call) {
	c.w.Header().Set("Retry-After", "1")
	writeFault(c.w, Fault{
		Title: c.r.Method + " " + c.r.URL.Path, Status: http.StatusTooManyRequests, Code: string(fault.Busy),
		Detail: c.who.Name + " asks too often, or has too many or too large requests open", Hint: "wait a second and try again",
	})
}

// noRoute answers what no route matches. The methods are those of the path's
// own routes, so that 405 stays distinct from 404.
func (s *Server) noRoute(c *call) {
	w, r := c.w, c.r
	if allowed := s.allowed(r); len(allowed) > 0 {
		for _, method := range allowed {
			w.Header().Add("Allow", method)
		}
		writeFault(w, Fault{Title: r.Method + " " + r.URL.Path, Status: http.StatusMethodNotAllowed,
			Code: string(fault.Invalid), Detail: "the path does not know this method"})
		return
	}
	writeFault(w, Fault{Title: r.Method + " " + r.URL.Path, Status: http.StatusNotFound, Code: string(fault.NotFound),
		Detail: "no such path", Hint: "GET /v1/openapi.json lists all"})
}

func (s *Server) allowed(r *http.Request) []string {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := s.mux.Handler(probe); pattern != "/" {
			methods = append(methods, method)
		}
	}
	return methods
}
