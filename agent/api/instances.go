package api

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// maxRun is the most instances one request creates.
const maxRun = 1000

// UnmarshalJSON decodes as strictly as a file is decoded, except that a
// template may lack a name.
func (r *RunRequest) UnmarshalJSON(text []byte) (err error) {
	var wire struct {
		Template json.RawMessage `json:"template"`
		Count    int             `json:"count"`
	}
	if err := decodeStrict(text, &wire); err != nil {
		return err
	}
	if wire.Count < 0 || wire.Count > maxRun {
		return fault.New(fault.Invalid, "count", "%d is not within 1 and %d", wire.Count, maxRun)
	}
	named, err := nameTemplate(wire.Template)
	if err != nil {
		return err
	}
	r.Count = wire.Count
	r.Template, err = decodeObject("template", named)
	return withoutPlace(err)
}

// withoutPlace drops "template:1:84": nobody wrote the template as a text, so
// line and column tell nothing.
func withoutPlace(err error) error {
	known, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err
	}
	plain := *known
	plain.What = "template"
	if parts := strings.SplitN(known.What, ":", 4); len(parts) == 4 { // name, line, column, the field
		plain.What = strings.TrimSpace(parts[3])
	}
	return &plain
}

// nameTemplate gives a template without a name one made from its image, before
// the strict decoder sees it: everything else it refuses must stay refused.
func nameTemplate(template json.RawMessage) (json.RawMessage, error) {
	var wire map[string]any
	if err := json.Unmarshal(template, &wire); err != nil {
		return nil, fault.New(fault.Invalid, "template", "is no object: %w", err)
	}
	metadata, ok := wire["metadata"].(map[string]any)
	if !ok || (metadata["name"] != nil && metadata["name"] != "") {
		return template, nil
	}
	specification, _ := wire["spec"].(map[string]any)
	image, _ := specification["image"].(string)
	metadata["name"] = nameFrom(image)
	return json.Marshal(wire)
}

// nameFrom makes a name of an image's last part and a few random letters:
// "debian-k3x9f". It is a legal name whatever the image is.
func nameFrom(image string) string {
	base, _, _ := strings.Cut(path.Base(strings.TrimPrefix(image, spec.ArchiveScheme)), "@")
	base, _, _ = strings.Cut(base, ":")
	base = strings.TrimSuffix(base, ".tar")
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, base)
	name = strings.Trim(name[:min(len(name), 40)], "-")
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "server"
	}
	return name + "-" + strings.ToLower(rand.Text()[:5])
}

// expand makes the instances a request asks for.
func (r RunRequest) expand() []*spec.Object {
	if r.Count <= 1 {
		return []*spec.Object{r.Template}
	}
	objects := make([]*spec.Object, r.Count)
	for i := range objects {
		one := *r.Template
		one.Metadata.Name += "-" + strconv.Itoa(i+1)
		objects[i] = &one
	}
	return objects
}

func postRun(s *Server, c *call, in RunRequest) (ApplyResult, error) {
	tenant := c.r.PathValue("tenant")
	if in.Template.Kind != spec.KindInstance || in.Template.Metadata.Tenant != tenant {
		return ApplyResult{}, fault.New(fault.Invalid, "run", "the template is %s, want an instance of tenant %s", in.Template.Ref(), tenant)
	}
	return s.apply(c, in.expand(), ApplyOptions{CreateOnly: true})
}

func instanceRef(c *call) spec.Ref { return ofKind(spec.KindInstance).ref(c) }

func doVerb(verb Verb) func(*Server, *call) (ChangeRef, error) {
	return func(s *Server, c *call) (ChangeRef, error) {
		return s.backend.Instances.Verb(c.r.Context(), c.who, instanceRef(c), verb)
	}
}

func getInstanceAudit(s *Server, c *call) (AuditReport, error) {
	ref := instanceRef(c)
	reports, err := s.backend.Host.Audit(c.r.Context(), []spec.Ref{ref})
	if err != nil {
		return AuditReport{}, err
	}
	if len(reports) != 1 {
		return AuditReport{}, fault.New(fault.NotFound, "audit "+ref.String(), "it is not running")
	}
	return reports[0], nil
}

func (c *call) logOptions() (LogOptions, error) {
	follow, err := c.flag("follow")
	if err != nil {
		return LogOptions{}, err
	}
	since, err := c.time("since")
	if err != nil {
		return LogOptions{}, err
	}
	tail, err := c.number("tail")
	return LogOptions{Follow: follow, Since: since, Tail: int(min(tail, 1<<30))}, err
}

// HeaderDeletedAt of a log says since when its instance is gone (RFC 3339).
const HeaderDeletedAt = "Gpuhost-Deleted-At"

func getLogs(s *Server, c *call) error {
	options, err := c.logOptions()
	if err != nil {
		return err
	}
	log, err := s.backend.Instances.Logs(c.r.Context(), instanceRef(c), options)
	if err != nil {
		return err
	}
	defer log.Close()
	c.w.Header().Set("Content-Type", typeText)
	c.w.Header().Set("X-Content-Type-Options", "nosniff")
	if !log.DeletedAt.IsZero() {
		c.w.Header().Set(HeaderDeletedAt, log.DeletedAt.UTC().Format(time.RFC3339Nano))
	}
	return c.pour(log)
}

// extend gives the peer of a stream time for its next piece; one that does not
// read loses its connection instead of holding a handler for ever.
func (c *call) extend() {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(writeTimeout))
}
