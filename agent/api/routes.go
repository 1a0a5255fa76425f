package api

import (
	"net/http"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// Media types that are not JSON.
const (
	typeNDJSON  = "application/x-ndjson"
	typeText    = "text/plain; charset=utf-8"
	typeArchive = "application/x-tar"
)

// Routes is the whole API. The multiplexer and the OpenAPI document are made
// from it and from nothing else.
func Routes() []Route {
	var all []Route
	for _, part := range [][]Route{
		probeRoutes(), documentRoutes(), hostRoutes(), tenantRoutes(), objectRoutes(), instanceRoutes(), imageRoutes(), historyRoutes(),
	} {
		all = append(all, part...)
	}
	return all
}

func probeRoutes() []Route {
	const get = http.MethodGet
	return []Route{
		{Method: get, Path: "/healthz", Access: AccessAnyone, Summary: "Whether the agent answers", Answers: typeText, endpoint: raw(getHealthz)},
		{Method: get, Path: "/readyz", Access: AccessAnyone, Summary: "Whether the parts beside the agent answer and what is wanted is in force", Answers: typeText, endpoint: raw(getReadyz)},
		{Method: get, Path: "/metrics", Access: AccessRead, Summary: "Metrics in the Prometheus text format", Answers: typeText, endpoint: raw(getMetrics)},
		{Method: get, Path: "/v1/openapi.json", Access: AccessAnyone, Summary: "This document", endpoint: gives(getDocument)},
		{Method: get, Path: "/v1/version", Access: AccessAnyone, Summary: "What is running", endpoint: gives(getVersion)},
		{Method: get, Path: "/v1/caller", Access: AccessAnyone, Summary: "Who the agent takes the caller for", endpoint: gives(getCaller)},
	}
}

// documentRoutes take many objects at once.
func documentRoutes() []Route {
	const post = http.MethodPost
	return []Route{
		{Method: post, Path: "/v1/apply", Access: AccessOwn, Summary: "Store objects, all or none", endpoint: takes(postApply).large()},
		{Method: post, Path: "/v1/plan", Access: AccessReadOwn, Summary: "What would change, and why", endpoint: takes(postPlan).large()},
		{Method: post, Path: "/v1/verify", Access: AccessReadOwn, Summary: "Where the host is not as wanted", endpoint: takes(postVerify).large()},
	}
}

func hostRoutes() []Route {
	const get, post = http.MethodGet, http.MethodPost
	return []Route{
		{Method: get, Path: "/v1/host", Access: AccessRead, Summary: "The Host object", endpoint: gives(getHost)},
		{Method: http.MethodPut, Path: "/v1/host", Access: AccessOperate, Summary: "Store the Host object", endpoint: takes(putHost)},
		{Method: get, Path: "/v1/status", Access: AccessRead, Summary: "The machine at a glance", endpoint: gives(getStatus)},
		{Method: get, Path: "/v1/gpus", Access: AccessReadOwn, Summary: "GPUs with their owners; a tenant sees its own", endpoint: gives(getGPUs)},
		{Method: get, Path: "/v1/links", Access: AccessRead, Summary: "How GPUs reach each other", endpoint: gives(getLinks)},
		{Method: post, Path: "/v1/gpus/{uuid}/action", Access: AccessOperate, Summary: "Quarantine a GPU or release it", endpoint: takes(postGPUAction)},
		{Method: get, Path: "/v1/audit", Access: AccessRead, Summary: "Isolation of running instances as the kernel shows it", endpoint: gives(getAudit)},
		{Method: get, Path: "/v1/doctor", Access: AccessRead, Summary: "Checks of the host", Query: []Param{{"check", "string", "only this check; may be repeated"}}, endpoint: gives(getDoctor)},
		{Method: get, Path: "/v1/config", Access: AccessRead, Summary: "Settings in force", endpoint: gives(getConfig)},
		{Method: post, Path: "/v1/config/reload", Access: AccessOperate, Summary: "Read the files of settings and desired state again; bad ones change nothing", endpoint: gives(postReload)},
		{Method: post, Path: "/v1/sim", Access: AccessOperate, Summary: "Break a simulated GPU, to test with; only where the agent simulates them", endpoint: takes(postSim)},
		{Method: http.MethodDelete, Path: "/v1/sim", Access: AccessOperate, Summary: "Make every simulated GPU whole again", endpoint: gives(deleteSim)},
	}
}

func tenantRoutes() []Route {
	const path = "/v1/tenants/{tenant}"
	return []Route{
		{Method: http.MethodGet, Path: "/v1/tenants", Access: AccessReadOwn, Summary: "Tenants; a tenant sees itself", endpoint: gives(getTenants)},
		{Method: http.MethodGet, Path: path, Access: AccessReadOwn, Summary: "One tenant", endpoint: gives(getTenant)},
		{Method: http.MethodPut, Path: path, Access: AccessOperate, Summary: "Store one tenant", endpoint: takes(putTenant)},
		{Method: http.MethodDelete, Path: path, Access: AccessOperate, Summary: "Delete one tenant", endpoint: gives(deleteTenant)},
	}
}

// objectRoutes are the same four for every kind that belongs to tenants.
func objectRoutes() []Route {
	var routes []Route
	for _, kind := range spec.Kinds() {
		if kind.Tenanted() {
			routes = append(routes, routesOf(kind)...)
		}
	}
	return routes
}

func routesOf(kind spec.Kind) []Route {
	all := "/v1/tenants/{tenant}/" + kind.Plural()
	one := all + "/{name}"
	write := AccessOwn
	if kind == spec.KindFloatingIP { // the host's public addresses are the operator's to give
		write = AccessOperate
	}
	k := ofKind(kind)
	return []Route{
		{Method: http.MethodGet, Path: all, Access: AccessReadOwn, Summary: "All of kind " + string(kind) + "; tenant - means every tenant", endpoint: gives(k.list)},
		{Method: http.MethodGet, Path: one, Access: AccessReadOwn, Summary: "One " + string(kind), endpoint: gives(k.get)},
		{Method: http.MethodPut, Path: one, Access: write, Summary: "Store one " + string(kind), endpoint: takes(k.put)},
		{Method: http.MethodDelete, Path: one, Access: write, Summary: "Delete one " + string(kind), endpoint: gives(k.delete)},
	}
}

func instanceRoutes() []Route {
	const get, post = http.MethodGet, http.MethodPost
	const all, one = "/v1/tenants/{tenant}/instances", "/v1/tenants/{tenant}/instances/{name}"
	routes := []Route{
		{Method: post, Path: all, Access: AccessOwn, Summary: "Create instances from a template", endpoint: takes(postRun)},
		{Method: get, Path: one + "/audit", Access: AccessReadOwn, Summary: "Isolation of one instance as the kernel shows it", endpoint: gives(getInstanceAudit)},
		{Method: get, Path: one + "/logs", Access: AccessReadOwn, Summary: "What the instance wrote", Answers: typeText, Query: logParams(), endpoint: raw(getLogs).endless()},
		{Method: post, Path: one + "/exec", Access: AccessOwn, Summary: "Run a command; the connection is upgraded to " + ExecProtocol, endpoint: execEndpoint()},
	}
	for _, verb := range []Verb{VerbStart, VerbStop, VerbRestart} {
		routes = append(routes, Route{Method: post, Path: one + "/" + string(verb), Access: AccessOwn,
			Summary: "Let the instance " + string(verb), endpoint: gives(doVerb(verb))})
	}
	return routes
}

func logParams() []Param {
	return []Param{
		{"follow", "boolean", "go on with new text as it comes"},
		{"since", "string", "RFC 3339 time"},
		{"tail", "integer", "only the last lines"},
	}
}

func imageRoutes() []Route {
	const post = http.MethodPost
	tenant := Param{"tenant", "string", "only this tenant's; empty means all"}
	name := Param{"name", "string", "the image"}
	return []Route{
		{Method: http.MethodGet, Path: "/v1/images", Access: AccessReadOwn, Summary: "Images", Query: []Param{tenant}, endpoint: gives(getImages)},
		{Method: http.MethodDelete, Path: "/v1/images", Access: AccessOwn, Summary: "Remove an image", Query: []Param{tenant, name}, endpoint: gives(deleteImage)},
		{Method: post, Path: "/v1/images/pull", Access: AccessOwn, Summary: "Fetch an image before it is needed", endpoint: takes(postPull)},
		{Method: post, Path: "/v1/images/import", Access: AccessOwn, Summary: "Import an OCI archive", Accepts: typeArchive, Query: []Param{tenant, name}, endpoint: gives(postImport).endless()},
		{Method: post, Path: "/v1/images/prune", Access: AccessOwn, Summary: "Remove images that no instance uses", Query: []Param{tenant}, endpoint: gives(postPrune)},
	}
}

func historyRoutes() []Route {
	const get = http.MethodGet
	follow := Param{"follow", "boolean", "go on with what comes"}
	limit := Param{"limit", "integer", "at most so many, the latest"}
	tenant := Param{"tenant", "string", "only about this tenant's objects"}
	return []Route{
		{Method: get, Path: "/v1/events", Access: AccessReadOwn, Summary: "Events as NDJSON; resume with since = the last seq seen", Answers: typeNDJSON,
			Query: []Param{{"since", "string", "a sequence number or an RFC 3339 time"}, follow, limit, tenant}, endpoint: streams[Event](getEvents)},
		{Method: get, Path: "/v1/changes", Access: AccessReadOwn, Summary: "The latest changes, newest first", Query: []Param{limit, tenant}, endpoint: gives(getChanges)},
		{Method: get, Path: "/v1/changes/{id}", Access: AccessReadOwn, Summary: "One change with its steps", endpoint: gives(getChange)},
		{Method: get, Path: "/v1/changes/{id}/watch", Access: AccessReadOwn, Summary: "The change at every step as NDJSON, until it ends", Answers: typeNDJSON, endpoint: streams[Change](watchChange)},
	}
}
