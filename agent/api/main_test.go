package api_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	operator = api.Caller{Name: "root", Role: api.RoleOperator}
	viewer   = api.Caller{UID: 2000, Name: "uid:2000", Role: api.RoleViewer}
	acme     = api.Caller{UID: 3000, Name: "uid:3000", Role: api.RoleTenant, Tenant: "acme"}
	nobody   = api.Caller{UID: 4000, Name: "uid:4000"}
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newServer(backend *apitest.Backend) *api.Server {
	return api.NewServer(api.Options{Log: quiet(), Version: api.Version{Version: "1.2.3", Go: "go"}}, backend.API())
}

// ask sends one request and gives the recorded answer.
func ask(s *api.Server, who api.Caller, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeAs(who, w, r)
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var value T
	if err := json.Unmarshal(w.Body.Bytes(), &value); err != nil {
		t.Fatalf("answer %d %q: %v", w.Code, w.Body, err)
	}
	return value
}

func faultOf(t *testing.T, w *httptest.ResponseRecorder) api.Fault {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != api.ProblemType {
		t.Fatalf("answer %d has type %q and body %q, want %s", w.Code, got, w.Body, api.ProblemType)
	}
	return decode[api.Fault](t, w)
}

func instance(tenant, name string) *spec.Object {
	return &spec.Object{APIVersion: spec.APIVersion, Kind: spec.KindInstance,
		Metadata: spec.Metadata{Tenant: tenant, Name: name, Generation: 3, UID: "a1b2c3d4"},
		Spec:     &spec.InstanceSpec{Image: "debian:12"}}
}

func text(t *testing.T, value any) string {
	t.Helper()
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

const instancePath = "/v1/tenants/acme/instances/train-1"

func want(t *testing.T, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	if w.Code != status {
		t.Fatalf("answer %d %s, want %d %s: %s", w.Code, http.StatusText(w.Code), status, http.StatusText(status), w.Body)
	}
}
