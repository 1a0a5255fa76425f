package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// problem is what is wrong with one field of an object.
type problem struct {
	kind fault.Kind
	path string // "spec.gpus.count"
	why  string
	hint string
}

// checker keeps the first problem found, so that checks read as a plain list.
type checker struct{ first *problem }

func (c *checker) report(p problem) {
	if c.first == nil {
		c.first = &p
	}
}

func (c *checker) invalid(path, format string, args ...any) {
	c.report(problem{kind: fault.Invalid, path: path, why: fmt.Sprintf(format, args...)})
}

// unsupported is for what the contract has and this version has not.
func (c *checker) unsupported(path, why string) {
	c.report(problem{kind: fault.Unsupported, path: path, why: why})
}

// fault takes over an error of a parser.
func (c *checker) fault(path string, err error) {
	if err != nil {
		c.report(problem{kind: fault.KindOf(err), path: path, why: err.Error(), hint: fault.HintOf(err)})
	}
}

func (c *checker) oneOf(path, value string, known ...string) {
	if value == "" || slices.Contains(known, value) {
		return
	}
	why := quote(value) + " is not one of " + strings.Join(known, ", ")
	if near := Nearest(value, known); near != "" {
		why += "; the nearest is " + quote(near)
	}
	c.invalid(path, "%s", why)
}

func (c *checker) label(path, value string) {
	if why := labelProblem(value); why != "" {
		c.invalid(path, "%s %s", quote(value), why)
	}
}

func (c *checker) optionalLabel(path, value string) {
	if value != "" {
		c.label(path, value)
	}
}

func (c *checker) between(path string, value, low, high int64) {
	if value < low || value > high {
		c.invalid(path, "%d is not between %d and %d", value, low, high)
	}
}

// labelProblem says what keeps text from being an RFC 1123 label.
func labelProblem(text string) string {
	const longest = 63
	switch {
	case text == "":
		return "is empty"
	case len(text) > longest:
		return "is longer than 63 characters"
	case strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return "has characters other than a-z, 0-9 and -"
	case text[0] == '-' || text[len(text)-1] == '-':
		return "begins or ends with -"
	}
	return ""
}

// Validate checks one object by itself: names, the ranges of its fields, and
// that it asks for nothing this version cannot do. It accepts an object with
// and without [Default] applied.
func Validate(o *Object) error {
	p := check(o)
	if p == nil && o.Kind.Tenanted() && o.Metadata.Tenant == "" {
		p = &problem{kind: fault.Invalid, path: "metadata.tenant", why: "is missing"}
	}
	if p == nil {
		return nil
	}
	err := fault.New(p.kind, o.label()+p.path, "%s", p.why)
	err.Hint = p.hint
	return err
}

// check is Validate without asking for a tenant, which a caller may add.
func check(o *Object) *problem {
	c := &checker{}
	if o.Spec == nil || NewSpec(o.Kind) == nil || o.Spec.Kind() != o.Kind {
		c.invalid("kind", "%s has no specification of its kind", quote(string(o.Kind)))
		return c.first
	}
	c.metadata(o)
	c.supported(o)
	switch s := o.Spec.(type) {
	case *HostSpec:
		c.host(s)
	case *TenantSpec:
		c.tenant(s)
	case *InstanceSpec:
		c.instance(s)
	case *SecretSpec:
		c.secret(s)
	case *NetworkSpec:
		c.cidr("spec.cidr", s.CIDR)
	case *SubnetSpec:
		c.optionalLabel("spec.network", s.Network)
		c.cidr("spec.cidr", s.CIDR)
	case *SecurityGroupSpec:
		c.rules("spec.ingress", s.Ingress)
		c.rules("spec.egress", s.Egress)
	}
	return c.first
}

func (c *checker) metadata(o *Object) {
	m := o.Metadata
	if m.Name == "" && o.Kind != KindHost {
		c.invalid("metadata.name", "is missing")
	}
	if o.Kind == KindHost && m.Name != "" && m.Name != HostName {
		c.invalid("metadata.name", "%s: there is one host, and its name is %q", quote(m.Name), HostName)
	}
	c.optionalLabel("metadata.name", m.Name)
	c.optionalLabel("metadata.tenant", m.Tenant)
	if !o.Kind.Tenanted() && m.Tenant != "" {
		c.invalid("metadata.tenant", "a %s belongs to no tenant", o.Kind.Lower())
	}
	if o.Kind == KindTenant {
		c.tenantName("metadata.name", m.Name)
	}
	c.tenantName("metadata.tenant", m.Tenant)
	c.labels("metadata.labels", m.Labels)
}

// tenantName keeps "instance/x" on the command line from meaning two things.
func (c *checker) tenantName(path, name string) {
	if kind, is := ParseKind(name); is {
		c.invalid(path, "%s is the name of a kind (%s) and cannot be a tenant's", quote(name), kind)
	}
}

const (
	maxLabels     = 32 // an object; every label may become one of a time series
	maxLabelValue = 63
)

func (c *checker) labels(path string, labels map[string]string) {
	if len(labels) > maxLabels {
		c.invalid(path, "there are %d, at most %d are kept", len(labels), maxLabels)
	}
	for _, key := range sortedKeys(labels) {
		if !isLabelText(key) || key == "" {
			c.invalid(path, "the key %s is not made of letters, digits, - _ . and /", quote(key))
		}
		if !isLabelText(labels[key]) {
			c.invalid(join(path, key), "%s is not at most %d letters, digits, - _ . and /", quote(labels[key]), maxLabelValue)
		}
	}
}

func isLabelText(text string) bool {
	return len(text) <= maxLabelValue && !strings.ContainsFunc(text, func(r rune) bool {
		return !isAlphanumeric(r) && !strings.ContainsRune("-_./", r)
	})
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// supported names what the contract promises and this version has not built.
func (c *checker) supported(o *Object) {
	switch s := o.Spec.(type) {
	case *VolumeSpec, *NetworkACLSpec, *FloatingIPSpec, *LoadBalancerSpec:
		c.unsupported("kind", string(o.Kind)+" is not built yet")
	case *HostSpec:
		c.unbuilt("spec.driver", s.Driver != nil)
		c.unbuilt("spec.mig", len(s.MIG) > 0)
	case *SubnetSpec:
		c.unbuilt("spec.acl", s.ACL != "")
	case *InstanceSpec:
		c.instanceSupported(s)
	}
}

func (c *checker) unbuilt(path string, used bool) {
	if used {
		c.unsupported(path, "is not built yet")
	}
}

func (c *checker) instanceSupported(s *InstanceSpec) {
	if s.Isolation == TierSandbox || s.Isolation == TierVM {
		c.unsupported("spec.isolation", "the tier "+s.Isolation+" is not built yet, only "+TierContainer)
	}
	c.unbuilt("spec.resources.disk", s.Resources.Disk != 0)
	if s.GPUs.MIG != "" {
		c.unsupported("spec.gpus.mig", "MIG creation comes later; only whole GPUs are given")
	}
	c.unbuilt("spec.network.bandwidth", s.Network.Bandwidth != BandwidthSpec{})
	c.unbuilt("spec.sshKeys", len(s.SSHKeys) > 0)
	c.unbuilt("spec.userData", s.UserData != "")
	c.unbuilt("spec.volumes", len(s.Volumes) > 0)
}

func indexed(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
