package api

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

func getImages(s *Server, c *call) (List[Image], error) {
	tenant, err := c.tenant()
	if err != nil {
		return List[Image]{}, err
	}
	return listOf(s.backend.Images.List(c.r.Context(), tenant))
}

// oneTenant is c.tenant where "all" has no meaning.
func (c *call) oneTenant(what string) (string, error) {
	tenant, err := c.tenant()
	if err == nil && tenant == "" {
		return "", fault.New(fault.Invalid, what, "parameter tenant is missing")
	}
	return tenant, err
}

// None is an answer with nothing to say.
type None struct{}

func deleteImage(s *Server, c *call) (None, error) {
	tenant, err := c.oneTenant("remove image")
	if err != nil {
		return None{}, err
	}
	name := c.query("name")
	if name == "" {
		return None{}, fault.New(fault.Invalid, "remove image", "parameter name is missing")
	}
	return None{}, s.backend.Images.Remove(c.r.Context(), c.who, tenant, name)
}

// mayName keeps a tenant from having the agent, which is root, open a file of the
// host. Every route that takes an image's name asks it.
func mayName(what string, who Caller, image string) error {
	if who.Role != RoleTenant || !strings.HasPrefix(image, spec.ArchiveScheme) {
		return nil
	}
	return fault.New(fault.Forbidden, what, "%s names a file of the host", image).
		WithHint("gpuhost image import FILE, then name the image")
}

func postPull(s *Server, c *call, in PullRequest) (ChangeRef, error) {
	if in.Tenant == "" || in.Image == "" {
		return ChangeRef{}, fault.New(fault.Invalid, "pull", "tenant and image are mandatory")
	}
	if c.who.Role == RoleTenant && in.Tenant != c.who.Tenant {
		return ChangeRef{}, denied("pull for tenant "+in.Tenant, c.who)
	}
	if err := mayName("pull for tenant "+in.Tenant, c.who, in.Image); err != nil {
		return ChangeRef{}, err
	}
	return s.backend.Images.Pull(c.r.Context(), c.who, in)
}

func postImport(s *Server, c *call) (List[Image], error) {
	tenant, err := c.oneTenant("import image")
	if err != nil {
		return List[Image]{}, err
	}
	request := ImportRequest{Tenant: tenant, Name: c.query("name"), Size: c.r.ContentLength}
	if err := mayName("import image", c.who, request.Name); err != nil {
		return List[Image]{}, err
	}
	archive := patientReader{c.r.Body, http.NewResponseController(c.w)}
	return listOf(s.backend.Images.Import(c.r.Context(), c.who, request, archive))
}

// patientReader lets a long body take its time as long as it moves.
type patientReader struct {
	io.Reader
	connection *http.ResponseController
}

// Read implements io.Reader.
func (p patientReader) Read(b []byte) (int, error) {
	_ = p.connection.SetReadDeadline(time.Now().Add(bodyTimeout))
	n, err := p.Reader.Read(b)
	if err != nil {
		_ = p.connection.SetReadDeadline(time.Time{}) // see call.body
	}
	return n, err
}

func postPrune(s *Server, c *call) (PruneResult, error) {
	tenant, err := c.tenant()
	if err != nil {
		return PruneResult{}, err
	}
	result, err := s.backend.Images.Prune(c.r.Context(), c.who, tenant)
	if result.Removed == nil {
		result.Removed = []Image{}
	}
	return result, err
}
