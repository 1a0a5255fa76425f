// Package fault gives every error of the agent a kind.
//
// The kind decides, in this one place, the HTTP status of the API, the exit
// code of the command line and whether the loop tries again. Packages wrap
// foreign errors where they know what went wrong and let unknown ones be
// [Internal]. A fault reads "what: why" and carries the next command as hint.
package fault

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind is what went wrong, seen by the person or program that has to act.
type Kind string

// The kinds. Their text is the API's `code` and never changes.
const (
	Internal    Kind = "internal"     // a defect or an unexpected answer of the operating system
	Invalid     Kind = "invalid"      // the input is wrong and will stay wrong
	NotFound    Kind = "not_found"    // no such object
	Conflict    Kind = "conflict"     // another writer, owner or generation was first
	Busy        Kind = "busy"         // in use now; may succeed later
	Exhausted   Kind = "exhausted"    // quota, capacity or space would be exceeded
	Unsupported Kind = "unsupported"  // understood, but not built or not possible on this host
	NeedsReboot Kind = "needs_reboot" // only a reboot brings it about
	Temporary   Kind = "temporary"    // a part is away; trying again is expected to help
	Forbidden   Kind = "forbidden"    // the caller may not
	Timeout     Kind = "timeout"      // a deadline passed
)

// Exit codes of the command line, fixed by the contract.
const (
	ExitOK           = 0
	ExitFailed       = 1
	ExitUsage        = 2
	ExitNotConverged = 3
	ExitNotFound     = 4
	ExitUnreachable  = 5
	ExitPermission   = 6
	ExitConflict     = 7
	ExitTimeout      = 8
)

type traits struct {
	status int
	exit   int
	retry  bool
}

// traitsOf is a function and not a table variable so that no caller can change it.
func traitsOf(k Kind) traits {
	switch k {
	case Invalid:
		return traits{http.StatusUnprocessableEntity, ExitUsage, false}
	case NotFound:
		return traits{http.StatusNotFound, ExitNotFound, false}
	case Conflict:
		return traits{http.StatusConflict, ExitConflict, false}
	case Busy:
		return traits{http.StatusConflict, ExitConflict, true}
	case Exhausted:
		return traits{http.StatusConflict, ExitConflict, true}
	case Unsupported:
		return traits{http.StatusNotImplemented, ExitUsage, false}
	case NeedsReboot:
		return traits{http.StatusConflict, ExitNotConverged, false}
	case Temporary:
		return traits{http.StatusServiceUnavailable, ExitFailed, true}
	case Forbidden:
		return traits{http.StatusForbidden, ExitPermission, false}
	case Timeout:
		return traits{http.StatusGatewayTimeout, ExitTimeout, true}
	default:
		return traits{http.StatusInternalServerError, ExitFailed, true}
	}
}

// Status is the HTTP status an API answer with this kind carries.
func (k Kind) Status() int { return traitsOf(k).status }

// Exit is the exit code of a command that ends with this kind.
func (k Kind) Exit() int { return traitsOf(k).exit }

// Retry says whether the loop may expect a later try to succeed.
func (k Kind) Retry() bool { return traitsOf(k).retry }

// Error is a fault. The zero Kind counts as [Internal].
type Error struct {
	Kind Kind
	What string // the verb and the object: "pull image busybox"
	Why  string // the reason, without the what; empty when Err says it
	Hint string // the next command, or empty
	Err  error  // the cause, or nil
}

// Error renders "what: why: cause", leaving out what is empty.
func (e *Error) Error() string {
	text := e.What
	for _, part := range []string{e.Why, errText(e.Err)} {
		switch {
		case part == "":
		case text == "":
			text = part
		default:
			text += ": " + part
		}
	}
	return text
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// New makes a fault of what failed and a formatted why. A %w in the format is
// kept as the cause.
func New(kind Kind, what, whyFormat string, args ...any) *Error {
	why := fmt.Errorf(whyFormat, args...)
	return &Error{Kind: kind, What: what, Err: why}
}

// Wrap gives a foreign error a kind and says what was being done. It returns
// nil for a nil error. An err that is a fault already keeps its own kind:
// whoever was closest knew best.
func Wrap(kind Kind, what string, err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) {
		return &Error{Kind: known.Kind, What: what, Hint: known.Hint, Err: err}
	}
	return &Error{Kind: kind, What: what, Err: err}
}

// WithHint returns a copy of e that names the next command.
func (e *Error) WithHint(format string, args ...any) *Error {
	hinted := *e
	hinted.Hint = fmt.Sprintf(format, args...)
	return &hinted
}

// KindOf finds the kind in an error chain; Internal when there is none, empty
// for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var known *Error
	if errors.As(err, &known) && known.Kind != "" {
		return known.Kind
	}
	return Internal
}

// HintOf finds the hint in an error chain, or "".
func HintOf(err error) string {
	var known *Error
	if errors.As(err, &known) {
		return known.Hint
	}
	return ""
}

// Is says whether err's kind is kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
