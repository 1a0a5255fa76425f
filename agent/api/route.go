package api

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Access says who may use a route.
type Access string

// The levels of access, from open to closed. Operators may use every route and
// viewers every route that only reads.
const (
	AccessAnyone  Access = "anyone"  // whoever can connect: health and the document itself
	AccessReadOwn Access = "readOwn" // also tenants, about what is their own
	AccessRead    Access = "read"    // operators and viewers
	AccessOwn     Access = "own"     // operators, and tenants on what is their own
	AccessOperate Access = "operate" // operators alone
)

// allows says whether the role may use routes of this level. For tenants the
// path or the handler narrows it further to their own objects.
func (a Access) allows(role Role) bool {
	switch a {
	case AccessAnyone:
		return true
	case AccessReadOwn:
		return role != ""
	case AccessRead:
		return role == RoleOperator || role == RoleViewer
	case AccessOwn:
		return role == RoleOperator || role == RoleTenant
	case AccessOperate:
		return role == RoleOperator
	}
	return false
}

// Param is one query parameter.
type Param struct {
	Name string
	Type string // a JSON schema type: string, integer, boolean
	Help string
}

// Route is one line of the table.
type Route struct {
	Method  string
	Path    string // with {wildcards} as net/http has them
	Access  Access
	Summary string
	Query   []Param
	// Accepts and Answers are the media types of bodies that are not JSON.
	Accepts string
	Answers string
	endpoint
}

// Pattern is the route in the notation of http.ServeMux.
func (r Route) Pattern() string { return r.Method + " " + r.Path }

// wildcards lists the names in the path.
func (r Route) wildcards() []string {
	var names []string
	for part := range strings.SplitSeq(r.Path, "/") {
		if strings.HasPrefix(part, "{") {
			names = append(names, strings.Trim(part, "{}"))
		}
	}
	return names
}

// endpoint is a handler with the types it takes and gives. The constructors
// below make it, so that the document cannot differ from the code.
type endpoint struct {
	in, out reflect.Type // nil where there is no body
	serve   func(s *Server, c *call) error
	stream  bool // lasts as long as both sides want
	maxBody int64
}

// gives is an endpoint without a request body.
func gives[Out any](handle func(*Server, *call) (Out, error)) endpoint {
	return endpoint{out: reflect.TypeFor[Out](), serve: func(s *Server, c *call) error {
		out, err := handle(s, c)
		if err != nil {
			return err
		}
		return c.answer(out)
	}}
}

// takes is an endpoint with a JSON request body.
func takes[In, Out any](handle func(*Server, *call, In) (Out, error)) endpoint {
	return endpoint{in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](), serve: func(s *Server, c *call) error {
		var in In
		if err := c.decode(&in); err != nil {
			return err
		}
		out, err := handle(s, c, in)
		if err != nil {
			return err
		}
		return c.answer(out)
	}}
}

// streams is an endpoint that writes its answer itself, item by item.
func streams[Item any](handle func(*Server, *call) error) endpoint {
	return endpoint{out: reflect.TypeFor[Item](), serve: handle, stream: true}
}

// raw is an endpoint whose answer is no JSON.
func raw(handle func(*Server, *call) error) endpoint { return endpoint{serve: handle} }

// large lets an endpoint take a whole folder of objects at once.
func (e endpoint) large() endpoint {
	e.maxBody = maxFolderBody
	return e
}

func (e endpoint) bodyLimit() int64 {
	if e.maxBody == 0 {
		return maxBody
	}
	return e.maxBody
}

// bodySize is how many bytes of JSON a request brings at most.
func (e endpoint) bodySize(r *http.Request) int64 {
	switch {
	case e.in == nil:
		return 0
	case r.ContentLength < 0:
		return e.bodyLimit()
	}
	return min(r.ContentLength, e.bodyLimit())
}

// endless is an endpoint whose body or answer has no fixed end.
func (e endpoint) endless() endpoint {
	e.stream = true
	return e
}

// authorise refuses a caller whose role is too small, or who names another
// tenant in the path. It answers before anything is looked up, so that nobody
// learns what exists.
func (r Route) authorise(c *call) error {
	what := r.Method + " " + c.r.URL.Path
	if !r.Access.allows(c.who.Role) {
		return denied(what, c.who)
	}
	tenant := c.r.PathValue("tenant")
	if tenant == AllTenants && c.who.Role == RoleTenant { // all it may see
		tenant = c.who.Tenant
		c.r.SetPathValue("tenant", tenant)
	}
	if r.Access != AccessAnyone && c.who.Role == RoleTenant && tenant != "" && tenant != c.who.Tenant {
		return denied(what, c.who)
	}
	return nil
}

func denied(what string, who Caller) error {
	switch who.Role {
	case "":
		return fault.New(fault.Forbidden, what, "%s has no role on this host", who.Name).
			WithHint("ask the operator for group gpuhost or gpuhost-view, or for a tenant of your own in the settings")
	case RoleTenant:
		return fault.New(fault.Forbidden, what, "%s acts for tenant %s only", who.Name, who.Tenant)
	default:
		return fault.New(fault.Forbidden, what, "%s only reads", who.Name).WithHint("ask the operator for group gpuhost")
	}
}
