package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/google/go-containerregistry/pkg/registry"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/plan"
	"github.com/gpuhost/gpuhost/agent/spec"
	"github.com/gpuhost/gpuhost/isolation"
	"github.com/gpuhost/gpuhost/packaging/lab/hosttest"
)

const (
	goodUser     = "robot-acme"
	goodPassword = "correct horse/battery"
)

// testRegistry serves one image, "app:1", behind one of the ways to log in.
type testRegistry struct {
	server *httptest.Server
	token  bool // bearer tokens instead of basic authentication
}

func newRegistry(t *testing.T, token bool) *testRegistry {
	t.Helper()
	r := &testRegistry{token: token}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	push(t, inner, "app", "1", hosttest.BusyboxArchive(t))
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/token" {
			r.serveToken(w, req)
			return
		}
		if !r.allowed(req) {
			w.Header().Set("WWW-Authenticate", r.challenge())
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, req)
	}))
	t.Cleanup(r.server.Close)
	return r
}

// allow lists a registry on loopback in the host's settings.
func (h *host) allow(server *httptest.Server) {
	address := server.Listener.Addr().(*net.TCPAddr).AddrPort()
	h.client.config.LocalRegistries = append(h.client.config.LocalRegistries, address)
}

func (r *testRegistry) ref() string {
	return strings.TrimPrefix(r.server.URL, "http://") + "/app:1"
}

func (r *testRegistry) challenge() string {
	if r.token {
		return fmt.Sprintf(`Bearer realm="%s/token",service="test"`, r.server.URL)
	}
	return `Basic realm="test"`
}

func (r *testRegistry) allowed(req *http.Request) bool {
	if r.token {
		return req.Header.Get("Authorization") == "Bearer let-in"
	}
	user, password, _ := req.BasicAuth()
	return user == goodUser && password == goodPassword
}

func (r *testRegistry) serveToken(w http.ResponseWriter, req *http.Request) {
	user, password, _ := req.BasicAuth()
	if req.Method == http.MethodPost {
		user, password = req.PostFormValue("username"), req.PostFormValue("password")
	}
	if user != goodUser || password != goodPassword {
		// As careless as a real service may be: the answer repeats the question.
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "user %s with %s refused", user, password)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"token": "let-in", "access_token": "let-in"})
}

// push puts the image of an OCI archive into a registry.
func push(t *testing.T, into http.Handler, repository, tag, archive string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := make(map[string][]byte)
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var index imagespec.Index
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	base := "/v2/" + repository
	for name, body := range files {
		if sum, is := strings.CutPrefix(name, "blobs/sha256/"); is && sum != "" {
			put(t, into, http.MethodPost, base+"/blobs/uploads/?digest="+url.QueryEscape("sha256:"+sum), "", body)
		}
	}
	manifest := index.Manifests[0]
	put(t, into, http.MethodPut, base+"/manifests/"+tag, manifest.MediaType, files["blobs/sha256/"+manifest.Digest.Encoded()])
}

func put(t *testing.T, into http.Handler, method, target, mediaType string, body []byte) {
	t.Helper()
	req := httptest.NewRequest(method, target, bytes.NewReader(body))
	req.Header.Set("Content-Type", mediaType)
	w := httptest.NewRecorder()
	into.ServeHTTP(w, req)
	if w.Code >= 300 {
		t.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
	}
}

func loginAs(user, password string) func(context.Context) (string, string, error) {
	return func(context.Context) (string, string, error) { return user, password, nil }
}

func TestPull(t *testing.T) {
	h := newHost(t)
	var logged bytes.Buffer
	h.client.config.Log = slog.New(slog.NewTextHandler(&logged, nil))
	for _, tt := range []struct {
		name  string
		token bool
		login func(context.Context) (string, string, error)
		kind  fault.Kind
	}{
		{"basic", false, loginAs(goodUser, goodPassword), ""},
		{"token", true, loginAs(goodUser, goodPassword), ""},
		{"basic, wrong password", false, loginAs(goodUser, "wrong-secret"), fault.Forbidden},
		{"token, wrong password", true, loginAs(goodUser, "wrong-secret"), fault.Forbidden},
		{"basic, no login", false, nil, fault.Forbidden},
		{"token, no login", true, nil, fault.Forbidden},
		{"no such secret", false, func(context.Context) (string, string, error) {
			return "", "", fault.New(fault.NotFound, "read secret", "there is none")
		}, fault.NotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistry(t, tt.token)
			h.allow(r.server)
			var last plan.Progress
			image, err := h.client.PrepareImage(t.Context(), isolation.ImageRequest{Tenant: "acme", Ref: r.ref(), Login: tt.login},
				func(p plan.Progress) { last = p })
			if fault.KindOf(err) != tt.kind {
				t.Fatalf("error %v of kind %q, want %q", err, fault.KindOf(err), tt.kind)
			}
			if err != nil {
				checkNoSecrets(t, err.Error()+fault.HintOf(err)+logged.String())
				return
			}
			if last.Done < last.Total || last.Note != "unpacking" {
				t.Errorf("last progress %+v", last)
			}
			again, err := h.client.Image(t.Context(), "acme", r.ref())
			if err != nil || again != image || !strings.HasPrefix(image.Digest, "sha256:") {
				t.Errorf("image %+v, found again %+v, %v", image, again, err)
			}
			if other, err := h.client.Image(t.Context(), "other", r.ref()); err != nil || other != (isolation.Image{}) {
				t.Errorf("another tenant has it too: %+v, %v", other, err)
			}
		})
	}
	checkNoSecrets(t, logged.String())
}

func checkNoSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{goodUser, goodPassword, "wrong-secret", base64.StdEncoding.EncodeToString([]byte(goodUser + ":wrong-secret")), url.QueryEscape(goodPassword)} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %q", secret, text)
		}
	}
}

func TestPullFaults(t *testing.T) {
	h := newHost(t)
	r := newRegistry(t, false)
	h.allow(r.server)
	login := loginAs(goodUser, goodPassword)
	host := strings.TrimSuffix(r.ref(), "/app:1")
	const nobody = "127.0.0.1:1"
	h.client.config.LocalRegistries = append(h.client.config.LocalRegistries, netip.MustParseAddrPort(nobody))
	for _, tt := range []struct {
		name string
		req  isolation.ImageRequest
		kind fault.Kind
	}{
		{"no such tag", isolation.ImageRequest{Ref: host + "/app:2", Login: login}, fault.NotFound},
		{"no such repository", isolation.ImageRequest{Ref: host + "/none:1", Login: login}, fault.NotFound},
		{"nobody listens", isolation.ImageRequest{Ref: nobody + "/app:1"}, fault.Temporary},
		{"no reference", isolation.ImageRequest{Ref: "bad//name:1"}, fault.Invalid},
		{"control characters", isolation.ImageRequest{Ref: "a\nb"}, fault.Invalid},
		{"traversal", isolation.ImageRequest{Ref: "../../etc/passwd"}, fault.Invalid},
		{"policy never", isolation.ImageRequest{Ref: r.ref(), Policy: spec.PullNever}, fault.NotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Tenant = "acme"
			if _, err := h.client.PrepareImage(t.Context(), tt.req, nil); fault.KindOf(err) != tt.kind {
				t.Errorf("error %v of kind %q, want %q", err, fault.KindOf(err), tt.kind)
			}
		})
	}
}

// A pull is given up with the wish for its image: its context ends while a layer
// is on its way.
func TestAPullThatIsGivenUpLeavesNothing(t *testing.T) {
	h := newHost(t)
	r := newRegistry(t, false)
	h.allow(r.server)
	stalled := make(chan struct{})
	var once sync.Once
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.server.Config.Handler.ServeHTTP(&stallingWriter{ResponseWriter: w, stall: func() {
			once.Do(func() { close(stalled); <-req.Context().Done() })
		}}, req)
	}))
	defer front.Close()
	h.allow(front)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-stalled; cancel() }()
	req := isolation.ImageRequest{Tenant: "acme", Ref: strings.TrimPrefix(front.URL, "http://") + "/app:1", Login: loginAs(goodUser, goodPassword)}
	if _, err := h.client.PrepareImage(ctx, req, nil); err == nil {
		t.Fatal("it came to its end")
	}
	ctx = h.client.tenant(t.Context(), "acme")
	ingests, err := h.client.containerd.ContentStore().ListStatuses(ctx)
	if err != nil || len(ingests) > 0 {
		t.Errorf("ingests left: %v, %v", ingests, err)
	}
	err = h.client.containerd.ContentStore().Walk(ctx, func(info content.Info) error {
		t.Errorf("blob left: %s, %d bytes", info.Digest, info.Size)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := h.client.containerd.LeasesService().List(ctx); err != nil || len(left) > 0 {
		t.Errorf("leases left: %v, %v", left, err)
	}
	if _, err := h.client.PrepareImage(t.Context(), req, nil); err != nil {
		t.Errorf("the next pull: %v", err)
	}
}

// stallingWriter may stall after the first bytes of anything that is large.
type stallingWriter struct {
	http.ResponseWriter
	stall func()
}

func (w *stallingWriter) Write(b []byte) (int, error) {
	const large = 16 << 10
	if len(b) < large {
		return w.ResponseWriter.Write(b)
	}
	n, _ := w.ResponseWriter.Write(b[:large])
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	w.stall()
	rest, err := w.ResponseWriter.Write(b[n:])
	return n + rest, err
}
