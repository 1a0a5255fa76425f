package api

import (
	"encoding/json"
	"slices"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// AllTenants stands in the place of a tenant's name where all are meant. It is
// no legal name.
const AllTenants = "-"

// HostName is the name of the one Host object.
const HostName = "this"

// ofKind are the handlers of one kind that belongs to tenants.
type ofKind spec.Kind

func (k ofKind) ref(c *call) spec.Ref {
	return spec.Ref{Kind: spec.Kind(k), Tenant: c.r.PathValue("tenant"), Name: c.r.PathValue("name")}
}

func (k ofKind) list(s *Server, c *call) (List[*spec.Object], error) {
	tenant := c.r.PathValue("tenant")
	if tenant == AllTenants {
		tenant = ""
	}
	return listOf(s.backend.Objects.List(c.r.Context(), spec.Kind(k), tenant))
}

func (k ofKind) get(s *Server, c *call) (*spec.Object, error) {
	return s.backend.Objects.Get(c.r.Context(), k.ref(c))
}

func (k ofKind) put(s *Server, c *call, in ObjectBody) (ApplyResult, error) {
	return s.store(c, k.ref(c), in.Object)
}

func (k ofKind) delete(s *Server, c *call) (ChangeRef, error) { return s.remove(c, k.ref(c)) }

// ObjectBody is a request body that is one object.
type ObjectBody struct{ Object *spec.Object }

// UnmarshalJSON decodes as strictly as a file is decoded.
func (b *ObjectBody) UnmarshalJSON(text []byte) (err error) {
	b.Object, err = decodeObject("object", text)
	return err
}

// MarshalJSON writes the object itself.
func (b ObjectBody) MarshalJSON() ([]byte, error) { return json.Marshal(b.Object) }

// store applies one object under the name its path gives.
func (s *Server) store(c *call, ref spec.Ref, o *spec.Object) (ApplyResult, error) {
	if o.Ref() != ref {
		return ApplyResult{}, fault.New(fault.Invalid, "store "+ref.String(), "the body is %s", o.Ref())
	}
	generation, err := c.ifMatch()
	if err != nil {
		return ApplyResult{}, err
	}
	return s.apply(c, []*spec.Object{o}, ApplyOptions{IfMatch: generation})
}

func (s *Server) remove(c *call, ref spec.Ref) (ChangeRef, error) {
	generation, err := c.ifMatch()
	if err != nil {
		return ChangeRef{}, err
	}
	return s.backend.Objects.Delete(c.r.Context(), c.who, ref, generation)
}

func (s *Server) apply(c *call, objects []*spec.Object, how ApplyOptions) (ApplyResult, error) {
	if err := mayWrite(c.who, objects); err != nil {
		return ApplyResult{}, err
	}
	return s.backend.Objects.Apply(c.r.Context(), c.who, objects, how)
}

// mayWrite keeps a tenant to its own objects, and to images it may name.
func mayWrite(who Caller, objects []*spec.Object) error {
	if who.Role != RoleTenant {
		return nil
	}
	for _, o := range objects {
		what := "write " + o.Ref().String()
		if !o.Kind.Tenanted() || o.Kind == spec.KindFloatingIP || o.Metadata.Tenant != who.Tenant {
			return denied(what, who)
		}
		instance, ok := o.Spec.(*spec.InstanceSpec)
		if !ok {
			continue
		}
		if err := mayName(what, who, instance.Image); err != nil {
			return err
		}
	}
	return nil
}

// mayLook keeps a tenant from asking about others' objects.
func mayLook(what string, who Caller, objects []*spec.Object) error {
	others := slices.ContainsFunc(objects, func(o *spec.Object) bool {
		return o.Metadata.Tenant != who.Tenant || !o.Kind.Tenanted()
	})
	if who.Role == RoleTenant && (others || len(objects) == 0) {
		return denied(what, who)
	}
	return nil
}

func postApply(s *Server, c *call, in ApplyRequest) (ApplyResult, error) {
	if len(in.Objects) == 0 {
		return ApplyResult{}, fault.New(fault.Invalid, "apply", "there are no objects")
	}
	return s.apply(c, in.Objects, ApplyOptions{DryRun: in.DryRun})
}

func postPlan(s *Server, c *call, in PlanRequest) (PlanResult, error) {
	if err := mayLook("plan", c.who, in.Objects); err != nil {
		return PlanResult{}, err
	}
	return s.backend.Planner.Plan(c.r.Context(), in.Objects)
}

func postVerify(s *Server, c *call, in PlanRequest) (List[Deviation], error) {
	if err := mayLook("verify", c.who, in.Objects); err != nil {
		return List[Deviation]{}, err
	}
	return listOf(s.backend.Planner.Verify(c.r.Context(), in.Objects))
}

func getHost(s *Server, c *call) (*spec.Object, error) {
	return s.backend.Objects.Get(c.r.Context(), hostRef())
}

func putHost(s *Server, c *call, in ObjectBody) (ApplyResult, error) {
	return s.store(c, hostRef(), in.Object)
}

func hostRef() spec.Ref { return spec.Ref{Kind: spec.KindHost, Name: HostName} }

func getTenants(s *Server, c *call) (List[*spec.Object], error) {
	if c.who.Role != RoleTenant {
		return listOf(s.backend.Objects.List(c.r.Context(), spec.KindTenant, ""))
	}
	own, err := s.backend.Objects.Get(c.r.Context(), spec.Ref{Kind: spec.KindTenant, Name: c.who.Tenant})
	if fault.Is(err, fault.NotFound) { // it comes into being with its first instance
		return listOf[*spec.Object](nil, nil)
	}
	return List[*spec.Object]{Items: []*spec.Object{own}}, err
}

func tenantRef(c *call) spec.Ref {
	return spec.Ref{Kind: spec.KindTenant, Name: c.r.PathValue("tenant")}
}

func getTenant(s *Server, c *call) (*spec.Object, error) {
	return s.backend.Objects.Get(c.r.Context(), tenantRef(c))
}

func putTenant(s *Server, c *call, in ObjectBody) (ApplyResult, error) {
	return s.store(c, tenantRef(c), in.Object)
}

func deleteTenant(s *Server, c *call) (ChangeRef, error) { return s.remove(c, tenantRef(c)) }
