package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func TestGenerationIsETag(t *testing.T) {
	backend := apitest.New()
	backend.Put(instance("acme", "train-1"))
	server := newServer(backend)
	read := ask(server, operator, "GET", instancePath, "")
	want(t, read, http.StatusOK)
	if got := read.Header().Get("ETag"); got != `"3"` {
		t.Fatalf("ETag %s, want generation 3", got)
	}
	body := text(t, instance("acme", "train-1"))
	want(t, ask(server, operator, "PUT", instancePath, body, "If-Match", `"2"`), http.StatusConflict)
	want(t, ask(server, operator, "PUT", instancePath, body, "If-Match", `"3"`), http.StatusAccepted)
	want(t, ask(server, operator, "DELETE", instancePath, "", "If-Match", `"3"`), http.StatusConflict)
	want(t, ask(server, operator, "DELETE", instancePath, "", "If-Match", `"4"`), http.StatusAccepted)
	want(t, ask(server, operator, "GET", instancePath, ""), http.StatusNotFound)
}

func TestSlowWorkIsAccepted(t *testing.T) {
	backend := apitest.New()
	backend.Put(instance("acme", "train-1"))
	server := newServer(backend)
	w := ask(server, operator, "PUT", "/v1/tenants/acme/instances/train-1", text(t, instance("acme", "train-1")))
	want(t, w, http.StatusAccepted)
	result := decode[api.ApplyResult](t, w)
	if len(result.Changes) != 1 || result.Changes[0].ID != "c1" {
		t.Errorf("changes %+v, want c1", result.Changes)
	}
	network := `{"kind":"Network","metadata":{"tenant":"acme","name":"lab"},"spec":{"cidr":"10.0.0.0/16"}}`
	want(t, ask(server, operator, "PUT", "/v1/tenants/acme/networks/lab", network), http.StatusOK)
}

func TestRunNamesInstances(t *testing.T) {
	backend := apitest.New()
	server := newServer(backend)
	run := func(body string) []string {
		w := ask(server, operator, "POST", "/v1/tenants/acme/instances", body)
		want(t, w, http.StatusAccepted)
		var names []string
		for _, one := range decode[api.ApplyResult](t, w).Objects {
			names = append(names, one.Object.Metadata.Name)
		}
		return names
	}
	template := `{"kind":"Instance","metadata":{"tenant":"acme","name":%q},"spec":{"image":"registry.example/team/de_bian:12"}}`
	if diff := cmp.Diff([]string{"web"}, run(`{"template":`+fmt.Sprintf(template, "web")+`}`)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"n-1", "n-2", "n-3"}, run(`{"count":3,"template":`+fmt.Sprintf(template, "n")+`}`)); diff != "" {
		t.Error(diff)
	}
	if got := run(`{"template":` + fmt.Sprintf(template, "") + `}`)[0]; !strings.HasPrefix(got, "de-bian-") {
		t.Errorf("name %q, want one made from the image", got)
	}
	again := ask(server, operator, "POST", "/v1/tenants/acme/instances", `{"template":`+fmt.Sprintf(template, "web")+`}`)
	want(t, again, http.StatusConflict)
}

func TestSecretsAreRedacted(t *testing.T) {
	const value = "c0rrect-horse"
	secret := &spec.Object{APIVersion: spec.APIVersion, Kind: spec.KindSecret, Metadata: spec.Metadata{Tenant: "acme", Name: "registry"},
		Spec: &spec.SecretSpec{Data: map[string]string{"password": value}}}
	backend := apitest.New()
	backend.Put(secret)
	backend.Planned = []api.PlannedObject{{Object: secret.Ref(), Diffs: []api.Diff{{Path: "spec.data.password", From: value, To: value + "2"}}}}
	server := newServer(backend)
	body := text(t, secret)
	if !strings.Contains(body, value) {
		t.Fatal("the request would not hold the secret")
	}
	for _, row := range []struct{ method, path, body string }{
		{"GET", "/v1/tenants/acme/secrets", ""},
		{"GET", "/v1/tenants/-/secrets", ""},
		{"GET", "/v1/tenants/acme/secrets/registry", ""},
		{"PUT", "/v1/tenants/acme/secrets/registry", body},
		{"POST", "/v1/apply", `{"objects":[` + body + `]}`},
		{"POST", "/v1/plan", `{"objects":[` + body + `]}`},
	} {
		w := ask(server, operator, row.method, row.path, row.body)
		want(t, w, http.StatusOK)
		if strings.Contains(w.Body.String(), value) || !strings.Contains(w.Body.String(), spec.Redacted) {
			t.Errorf("%s %s: %s", row.method, row.path, w.Body)
		}
	}
	stored, err := backend.Get(t.Context(), secret.Ref())
	if err != nil || stored.Spec.(*spec.SecretSpec).Data["password"] != value {
		t.Errorf("redaction changed what is stored: %v %v", stored, err)
	}
}

// TestBadInput: each is refused with this code and text, and changes nothing.
func TestBadInput(t *testing.T) {
	good := text(t, instance("acme", "train-1"))
	huge := `{"objects":[` + strings.Repeat(" ", 5<<20) + `]}`
	for _, row := range []struct {
		name, method, path, body string
		status                   int
		code                     fault.Kind
		text                     string // title: detail
	}{
		{"no such path", "GET", "/v2", "", 404, fault.NotFound, "GET /v2: no such path"},
		{"no such kind", "GET", "/v1/tenants/acme/pods", "", 404, fault.NotFound, "GET /v1/tenants/acme/pods: no such path"},
		{"wrong method", "PATCH", instancePath, "", 405, fault.Invalid, "PATCH " + instancePath + ": the path does not know this method"},
		{"absent", "GET", instancePath, "", 404, fault.NotFound, "instance acme/train-1: there is none"},
		{"empty body", "PUT", instancePath, "", 422, fault.Invalid, "read request: the body is empty"},
		{"not JSON", "POST", "/v1/apply", "kind: Instance", 422, fault.Invalid, "read request: invalid character 'k' looking for beginning of value"},
		{"no objects", "POST", "/v1/apply", `{}`, 422, fault.Invalid, "apply: there are no objects"},
		{"unknown member", "POST", "/v1/apply", `{"object":[]}`, 422, fault.Invalid, `read request: there is no field "object"`},
		{"two values", "POST", "/v1/apply", `{} {}`, 422, fault.Invalid, "read request: there is text after the JSON value"},
		{"too long", "PUT", instancePath, huge, 422, fault.Invalid, "read request: the body is longer than 4MiB"},
		{"another name in the body", "PUT", "/v1/tenants/acme/instances/other", good, 422, fault.Invalid, "store instance acme/other: the body is instance acme/train-1"},
		{"another kind in the body", "PUT", "/v1/tenants/acme/volumes/train-1", good, 422, fault.Invalid, "store volume acme/train-1: the body is instance acme/train-1"},
		{"If-Match", "DELETE", instancePath, "", 404, fault.NotFound, "instance acme/train-1: there is none"},
		{"count", "POST", "/v1/tenants/acme/instances", `{"count":-1,"template":` + good + `}`, 422, fault.Invalid, "count: -1 is not within 1 and 1000"},
		{"image without tenant", "DELETE", "/v1/images?name=x", "", 422, fault.Invalid, "remove image: parameter tenant is missing"},
		{"image without name", "DELETE", "/v1/images?tenant=acme", "", 422, fault.Invalid, "remove image: parameter name is missing"},
		{"pull nothing", "POST", "/v1/images/pull", `{"tenant":"acme","image":""}`, 422, fault.Invalid, "pull: tenant and image are mandatory"},
		{"since", "GET", "/v1/events?since=yesterday", "", 422, fault.Invalid, `parameter since: "yesterday" is neither a sequence number nor an RFC 3339 time`},
		{"follow", "GET", "/v1/events?follow=maybe", "", 422, fault.Invalid, `parameter follow: "maybe" is neither true nor false`},
		{"limit", "GET", "/v1/changes?limit=-1", "", 422, fault.Invalid, `parameter limit: "-1" is no whole number`},
		{"log since", "GET", instancePath + "/logs?since=1", "", 422, fault.Invalid, `parameter since: "1" is no RFC 3339 time`},
		{"gpu action", "POST", "/v1/gpus/GPU-1/action", `{"action":"burn"}`, 422, fault.Invalid, `gpu GPU-1: action "burn" is unknown`},
		{"exec without upgrade", "POST", instancePath + "/exec", `{"command":["sh"]}`, 422, fault.Invalid, "exec: the request asks for no upgrade to gpuhost-frame/1"},
		{"audit of nobody", "GET", instancePath + "/audit", "", 404, fault.NotFound, "audit instance acme/train-1: it is not running"},
		{"no metrics", "GET", "/metrics", "", 404, fault.NotFound, "metrics: this agent has none"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := ask(newServer(apitest.New()), operator, row.method, row.path, row.body)
			want(t, w, row.status)
			f := faultOf(t, w)
			if got := f.Title + ": " + f.Detail; got != row.text || f.Code != string(row.code) || f.Status != row.status {
				t.Errorf("got  %d %s %q\nwant %d %s %q", f.Status, f.Code, got, row.status, row.code, row.text)
			}
		})
	}
}

func TestBadGeneration(t *testing.T) {
	for _, text := range []string{"0", `"x"`, "-1"} {
		w := ask(newServer(apitest.New()), operator, "DELETE", instancePath, "", "If-Match", text)
		want(t, w, http.StatusUnprocessableEntity)
	}
}

func TestObjectsAreCheckedLikeFiles(t *testing.T) {
	body := `{"objects":[{"kind":"Instance","metadata":{"tenant":"acme","name":"a"},"spec":{"image":"debian:12","comand":["x"]}}]}`
	f := faultOf(t, ask(newServer(apitest.New()), operator, "POST", "/v1/apply", body))
	if !strings.HasPrefix(f.Title, "objects[0]:1:") || !strings.Contains(f.Detail, `"command"`) {
		t.Errorf("%q %q, want the place and the nearest name", f.Title, f.Detail)
	}
}

func TestNameFrom(t *testing.T) {
	for image, prefix := range map[string]string{
		"debian:12":                      "debian-",
		"r.example:5000/a/b@sha256:0011": "b-",
		"oci-archive:/x/busybox.tar":     "busybox-",
		"9lives":                         "server-",
		"":                               "server-",
		"///":                            "server-",
		strings.Repeat("x", 300):         strings.Repeat("x", 40) + "-",
	} {
		got := api.NameFrom(image)
		if !strings.HasPrefix(got, prefix) || len(got) > 63 {
			t.Errorf("%q gives %q, want %s…", image, got, prefix)
		}
	}
}
