package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// ProblemType is the media type of errors (RFC 9457).
const ProblemType = "application/problem+json"

// Fault is an error on the wire, as RFC 9457 has it, with the kind of fault as
// code and the next command as hint.
type Fault struct {
	Title  string `json:"title"` // what was being done
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"` // why it was not
	Code   string `json:"code"`
	Hint   string `json:"hint,omitempty"`
}

// FaultOf puts an error on the wire. The chain of causes becomes the detail.
func FaultOf(err error) Fault {
	kind := fault.KindOf(err)
	f := Fault{Title: "request", Status: kind.Status(), Detail: err.Error(), Code: string(kind), Hint: fault.HintOf(err)}
	if known, ok := errors.AsType[*fault.Error](err); ok && known.Error() == err.Error() { // also where it was joined with nothing
		f.Title, f.Detail = known.What, because(known)
	}
	return f
}

// because is the text of e without its What.
func because(e *fault.Error) string {
	bare := *e
	bare.What = ""
	return bare.Error()
}

// Err takes an error off the wire.
func (f Fault) Err() error {
	return &fault.Error{Kind: fault.Kind(f.Code), What: f.Title, Why: f.Detail, Hint: f.Hint}
}

// fail answers with an error. What the caller cannot have caused is logged too,
// because only the host's journal will tell its operator.
func (s *Server) fail(w http.ResponseWriter, c *call, err error) {
	f := FaultOf(err)
	if f.Code == string(fault.Internal) {
		s.logDefect(c, err)
	}
	writeFault(w, f)
}

func (s *Server) logDefect(c *call, err error) {
	s.options.Log.Error("request ended with a defect", "method", c.r.Method, "path", c.r.URL.Path, "caller", c.who.Name, "error", err)
}

func writeFault(w http.ResponseWriter, f Fault) {
	w.Header().Set("Content-Type", ProblemType)
	w.WriteHeader(f.Status)
	// A peer that went away is no news.
	_ = json.NewEncoder(w).Encode(f)
}
