package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/gpuhost/gpuhost/agent/api"
	"github.com/gpuhost/gpuhost/agent/client"
	"github.com/gpuhost/gpuhost/agent/config"
	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// defaultTenant is the tenant of names without one, for operators.
const defaultTenant = "default"

// address is where the agent is: flag, then --root, then environment, then default.
func (a *app) address() (string, error) {
	switch {
	case a.host != "" && a.root != "":
		return "", usage("--host and --root exclude each other")
	case a.host != "":
		return a.host, nil
	case a.root != "":
		return socketBelow(a.root)
	case a.hooks.Getenv("GPUHOST_HOST") != "":
		return a.hooks.Getenv("GPUHOST_HOST"), nil
	}
	return client.DefaultHost, nil
}

func socketBelow(root string) (string, error) {
	absolute, err := filepath.Abs(root)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, "root "+root, err)
	}
	return "unix://" + config.PathsBelow(absolute).Socket(), nil
}

// connect gives the client; it dials on the first request only.
func (a *app) connect() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	address, err := a.address()
	if err != nil {
		return nil, err
	}
	a.client, err = client.New(address)
	return a.client, err
}

// ownTenant is the tenant of names without one: the flag's, the one the caller
// is mapped to, or the operator's default.
func (a *app) ownTenant(ctx context.Context) (string, error) {
	if a.tenant != "" || os.Geteuid() == 0 {
		return a.flagTenant(), nil
	}
	c, err := a.connect()
	if err != nil {
		return "", err
	}
	who, err := c.Caller(ctx)
	if err != nil {
		return "", err
	}
	if who.Role == api.RoleTenant {
		return who.Tenant, nil
	}
	return defaultTenant, nil
}

func (a *app) flagTenant() string {
	if a.tenant != "" {
		return a.tenant
	}
	return defaultTenant
}

// ref reads NAME as "tenant/name", or as "name" of the own tenant.
func (a *app) ref(ctx context.Context, kind spec.Kind, text string) (spec.Ref, error) {
	tenant, name, both := strings.Cut(text, "/")
	if !kind.Tenanted() {
		if both {
			return spec.Ref{}, usage("%s %q: this kind belongs to no tenant", kind.Lower(), text)
		}
		return spec.Ref{Kind: kind, Name: text}, nil
	}
	if both {
		if a.tenant != "" && a.tenant != tenant {
			return spec.Ref{}, usage("%q names another tenant than --tenant %s", text, a.tenant)
		}
		return checkedRef(spec.Ref{Kind: kind, Tenant: tenant, Name: name})
	}
	tenant, err := a.ownTenant(ctx)
	if err != nil {
		return spec.Ref{}, err
	}
	return checkedRef(spec.Ref{Kind: kind, Tenant: tenant, Name: text})
}

func checkedRef(ref spec.Ref) (spec.Ref, error) {
	for _, part := range []string{ref.Tenant, ref.Name} {
		if !isLabel(part) {
			return spec.Ref{}, fault.New(fault.Invalid, "name "+quoted(part), "is not made of a-z, 0-9 and - alone").
				WithHint("NAME is name, with --tenant, or tenant/name")
		}
	}
	return ref, nil
}

// isLabel is a first look; the agent judges names.
func isLabel(text string) bool {
	return text != "" && len(text) <= 63 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (a *app) refs(ctx context.Context, kind spec.Kind, names []string) ([]spec.Ref, error) {
	refs := make([]spec.Ref, 0, len(names))
	for _, name := range names {
		ref, err := a.ref(ctx, kind, name)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// kind reads KIND in any case, singular or plural, or names the nearest.
func kindOf(text string) (spec.Kind, error) {
	if kind, ok := spec.ParseKind(text); ok {
		return kind, nil
	}
	var names []string
	for _, kind := range spec.Kinds() {
		names = append(names, kind.Lower())
	}
	why := "there is no such kind"
	if near := spec.Nearest(strings.ToLower(text), names); near != "" {
		why += ", the nearest is " + quoted(near)
	}
	return "", fault.New(fault.Invalid, "kind "+quoted(text), "%s", why).WithHint("known: %s", strings.Join(names, ", "))
}
