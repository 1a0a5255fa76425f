package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
)

// FuzzRequest sends anything anywhere as a tenant. Whatever it is, the answer
// is JSON, no defect, and nothing of another tenant is in it.
func FuzzRequest(f *testing.F) {
	for _, route := range api.Routes() {
		f.Add(route.Method, pathFor(route, "acme"), `{}`)
	}
	f.Add("POST", "/v1/apply", `{"objects":[{"kind":"Instance","metadata":{"tenant":"acme","name":"a"},"spec":{"image":"debian:12"}}]}`)
	f.Add("POST", "/v1/tenants/acme/instances", `{"count":2,"template":{"kind":"Instance","metadata":{"tenant":"acme"},"spec":{"image":"x"}}}`)
	f.Add("PUT", "/v1/tenants/-/instances/%2e%2e", "\x00")
	f.Add("GET", "/v1/tenants/acme/../other/instances/secret-train", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		if _, err := url.ParseRequestURI(target); err != nil || strings.Contains(target, "follow") || strings.ContainsAny(target, " \r\n\t") {
			t.Skip("no HTTP client can send this target, or its answer is a stream without an end")
		}
		r, err := http.NewRequest(method, "http://host"+target, strings.NewReader(body))
		if err != nil {
			t.Skip("no HTTP client can send this method")
		}
		r.Header.Set("Upgrade", api.ExecProtocol)
		backend := apitest.New()
		backend.Put(instance("other", "secret-train"))
		w := httptest.NewRecorder()
		newServer(backend).ServeAs(acme, w, r)
		if w.Code >= http.StatusInternalServerError && w.Code != http.StatusNotImplemented && w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
		if w.Code >= http.StatusBadRequest && w.Header().Get("Content-Type") == api.ProblemType && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: %q is no JSON", method, target, w.Body)
		}
		if strings.Contains(w.Body.String(), `"secret-train"`) {
			t.Errorf("%s %s shows another tenant's object: %s", method, target, w.Body)
		}
	})
}
