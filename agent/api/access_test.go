package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/api/apitest"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// pathFor fills a route's wildcards.
func pathFor(route api.Route, tenant string) string {
	return strings.NewReplacer("{tenant}", tenant, "{name}", "train-1", "{id}", "c1", "{uuid}", "GPU-1").Replace(route.Path)
}

// TestAccess asks every route in every role. Whatever a role may not use is
// refused before the backend is asked, so a 403 is the whole truth.
func TestAccess(t *testing.T) {
	for _, route := range api.Routes() {
		if route.Streams() {
			continue // same check, and they would not end
		}
		for _, one := range []struct {
			who    api.Caller
			levels string // access levels this role may use
		}{
			{operator, "anyone readOwn read own operate"},
			{viewer, "anyone readOwn read"},
			{acme, "anyone readOwn own"},
			{nobody, "anyone"},
		} {
			allowed := strings.Contains(" "+one.levels+" ", " "+string(route.Access)+" ")
			w := ask(newServer(apitest.New()), one.who, route.Method, pathFor(route, "acme"), "")
			if got := w.Code != http.StatusForbidden; got != allowed {
				t.Errorf("%s as %q: answer %d, want allowed %t", route.Pattern(), one.who.Role, w.Code, allowed)
			}
		}
	}
}

func TestWritingRoutesNeedAuthentication(t *testing.T) {
	for _, route := range api.Routes() {
		if route.Method != http.MethodGet && route.Access == api.AccessAnyone {
			t.Errorf("%s is open to anyone", route.Pattern())
		}
		if route.Method != http.MethodGet && route.Access == api.AccessRead {
			t.Errorf("%s is open to viewers", route.Pattern())
		}
	}
}

func TestTenantSeesOwnOnly(t *testing.T) {
	backend := apitest.New()
	for _, tenant := range []string{"acme", "other"} {
		backend.Put(instance(tenant, "train-1"))
		backend.Put(&spec.Object{Kind: spec.KindTenant, Metadata: spec.Metadata{Name: tenant}, Spec: &spec.TenantSpec{}})
		backend.AddChange(api.Change{ID: "of-" + tenant, Object: spec.Ref{Kind: spec.KindInstance, Tenant: tenant, Name: "train-1"}, State: api.ChangeDone})
		backend.AddEvent(api.Event{Reason: "Of" + tenant, Object: spec.Ref{Kind: spec.KindInstance, Tenant: tenant, Name: "train-1"}})
		backend.AddImage(api.Image{Tenant: tenant, Name: "image-of-" + tenant})
		backend.Devices = append(backend.Devices, api.GPU{State: "Assigned", Tenant: tenant})
	}
	server := newServer(backend)
	for _, path := range []string{
		"/v1/tenants", "/v1/tenants/-/instances", "/v1/tenants/acme/instances", instancePath,
		"/v1/changes", "/v1/changes/of-acme", "/v1/events", "/v1/images", "/v1/gpus",
	} {
		w := ask(server, acme, http.MethodGet, path, "")
		want(t, w, http.StatusOK)
		if !strings.Contains(w.Body.String(), "acme") || strings.Contains(w.Body.String(), "other") {
			t.Errorf("GET %s as acme: %s", path, w.Body)
		}
	}
	for path, status := range map[string]int{
		"/v1/tenants/other":                   http.StatusForbidden,
		"/v1/tenants/other/instances":         http.StatusForbidden,
		"/v1/tenants/other/instances/train-1": http.StatusForbidden,
		"/v1/tenants/other/instances/absent":  http.StatusForbidden, // as one that exists
		"/v1/images?tenant=other":             http.StatusForbidden,
		"/v1/events?tenant=other":             http.StatusForbidden,
		"/v1/changes?tenant=other":            http.StatusForbidden,
		"/v1/changes/of-other":                http.StatusNotFound, // as one that does not exist
		"/v1/changes/absent":                  http.StatusNotFound,
	} {
		want(t, ask(server, acme, http.MethodGet, path, ""), status)
	}
}

// TestTenantWrites: what a tenant may not do with objects, by their content.
func TestTenantWrites(t *testing.T) {
	own := instance("acme", "train-1")
	own.Metadata.UID, own.Metadata.Generation = "", 0 // new
	others := instance("other", "train-1")
	archive := instance("acme", "train-1")
	archive.Spec = &spec.InstanceSpec{Image: "oci-archive:/etc/shadow.tar"}
	quota := &spec.Object{APIVersion: spec.APIVersion, Kind: spec.KindTenant, Metadata: spec.Metadata{Name: "acme"}, Spec: &spec.TenantSpec{}}
	for _, row := range []struct {
		name, method, path, body string
		status                   int
		detail                   string
	}{
		{"own", "PUT", instancePath, text(t, own), 202, ""},
		{"apply own", "POST", "/v1/apply", text(t, api.ApplyRequest{Objects: []*spec.Object{own}}), 202, ""},
		{"apply another's", "POST", "/v1/apply", text(t, api.ApplyRequest{Objects: []*spec.Object{own, others}}), 403, "uid:3000 acts for tenant acme only"},
		{"own quota", "POST", "/v1/apply", text(t, api.ApplyRequest{Objects: []*spec.Object{quota}}), 403, "uid:3000 acts for tenant acme only"},
		{"a file of the host", "PUT", instancePath, text(t, archive), 403, "oci-archive:/etc/shadow.tar names a file of the host"},
		{"a file of the host by run", "POST", "/v1/tenants/acme/instances", text(t, api.RunRequest{Template: archive}), 403, "oci-archive:/etc/shadow.tar names a file of the host"},
		{"run for another", "POST", "/v1/tenants/acme/instances", text(t, api.RunRequest{Template: others}), 422, "the template is instance other/train-1, want an instance of tenant acme"},
		{"a file of the host by pull", "POST", "/v1/images/pull", `{"tenant":"acme","image":"oci-archive:/etc/shadow.tar"}`, 403, "oci-archive:/etc/shadow.tar names a file of the host"},
		{"a file of the host by import", "POST", "/v1/images/import?tenant=acme&name=oci-archive:/etc/shadow.tar", "", 403, "oci-archive:/etc/shadow.tar names a file of the host"},
		{"pull own", "POST", "/v1/images/pull", `{"tenant":"acme","image":"debian"}`, 202, ""},
		{"pull for another", "POST", "/v1/images/pull", `{"tenant":"other","image":"debian"}`, 403, "uid:3000 acts for tenant acme only"},
		{"plan another's", "POST", "/v1/plan", text(t, api.PlanRequest{Objects: []*spec.Object{others}}), 403, "uid:3000 acts for tenant acme only"},
		{"plan everything", "POST", "/v1/plan", `{}`, 403, "uid:3000 acts for tenant acme only"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := ask(newServer(apitest.New()), acme, row.method, row.path, row.body)
			want(t, w, row.status)
			if row.detail == "" {
				return
			}
			if got := faultOf(t, w).Detail; got != row.detail {
				t.Errorf("detail %q, want %q", got, row.detail)
			}
		})
	}
}

func TestPeers(t *testing.T) {
	peers := api.Peers{OperatorGroups: []uint32{100}, ViewerGroups: []uint32{200}, Tenants: map[uint32]string{3000: "acme", 65534: "ghost"}}
	for _, row := range []struct {
		uid    uint32
		groups []uint32
		want   api.Caller
	}{
		{0, nil, api.Caller{UID: 0, Name: "root", Role: api.RoleOperator}},
		{1000, []uint32{1000, 100}, api.Caller{UID: 1000, Name: "uid:1000", Role: api.RoleOperator}},
		{1000, []uint32{200, 1000}, api.Caller{UID: 1000, Name: "uid:1000", Role: api.RoleViewer}},
		{1000, []uint32{200, 100}, api.Caller{UID: 1000, Name: "uid:1000", Role: api.RoleOperator}},
		{3000, []uint32{3000}, api.Caller{UID: 3000, Name: "uid:3000", Role: api.RoleTenant, Tenant: "acme"}},
		{1000, []uint32{1000}, api.Caller{UID: 1000, Name: "uid:1000"}},
		// The overflow id stands for everybody without a place in our user namespace.
		{65534, []uint32{100}, api.Caller{UID: 65534, Name: "uid:65534"}},
	} {
		if diff := cmp.Diff(row.want, peers.CallerOf(row.uid, row.groups...)); diff != "" {
			t.Errorf("uid %d groups %v (-want +got):\n%s", row.uid, row.groups, diff)
		}
	}
}

func TestRefusalsNameTheirReason(t *testing.T) {
	server := newServer(apitest.New())
	for _, row := range []struct {
		who    api.Caller
		detail string
	}{
		{nobody, "uid:4000 has no role on this host"},
		{viewer, "uid:2000 only reads"},
		{acme, "uid:3000 acts for tenant acme only"},
	} {
		f := faultOf(t, ask(server, row.who, "PUT", "/v1/host", "{}"))
		if f.Code != string(fault.Forbidden) || f.Detail != row.detail {
			t.Errorf("%s: %+v, want detail %q", row.who.Name, f, row.detail)
		}
	}
}
