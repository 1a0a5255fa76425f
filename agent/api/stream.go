package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// maxEvents is the most events one answer that is not followed holds.
const maxEvents = 10_000

// lines writes one JSON value a line and flushes each.
type lines struct {
	c       *call
	started bool
}

// start sends the header at once: a follower learns that it is heard before
// anything happens.
func (l *lines) start() {
	l.started = true
	l.c.extend()
	l.c.w.Header().Set("Content-Type", typeNDJSON)
	l.c.w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(l.c.w).Flush()
}

func (l *lines) put(value any) error {
	if !l.started {
		l.start()
	}
	l.c.extend()
	if err := json.NewEncoder(l.c.w).Encode(value); err != nil {
		return err
	}
	return http.NewResponseController(l.c.w).Flush()
}

// end closes a stream. An error after the header cannot be told any more: the
// connection is cut, so that the reader does not take a part for the whole.
func (l *lines) end(err error) error {
	l.c.extend() // the end of the answer is written too, perhaps long after the last item
	switch {
	case err == nil && !l.started:
		l.start()
		return nil
	case err == nil || !l.started:
		return err
	case l.c.r.Context().Err() != nil:
		return nil // the reader left, or the agent is stopping
	}
	panic(http.ErrAbortHandler)
}

// pour copies text as it comes. It ends quietly: a log that stops early and one
// that was cut look the same to whoever follows it.
func (c *call) pour(src io.Reader) error {
	c.extend()
	c.w.WriteHeader(http.StatusOK)
	buffer := make([]byte, 32<<10)
	for {
		n, err := src.Read(buffer)
		if n > 0 {
			c.extend()
			if _, err := c.w.Write(buffer[:n]); err != nil {
				return nil
			}
			_ = http.NewResponseController(c.w).Flush()
		}
		switch {
		case errors.Is(err, io.EOF):
			c.extend() // the end of the answer is written too
			return nil
		case err != nil && c.r.Context().Err() == nil:
			panic(http.ErrAbortHandler)
		case err != nil:
			return nil
		}
	}
}

// eventQuery reads since as a sequence number or as a time.
func (c *call) eventQuery() (EventQuery, error) {
	var q EventQuery
	limit, err := c.number("limit")
	if err != nil {
		return q, err
	}
	q.Limit = int(min(limit, maxEvents))
	if q.Tenant, err = c.tenant(); err != nil {
		return q, err
	}
	since := c.query("since")
	if since == "" {
		return q, nil
	}
	if q.After, err = strconv.ParseUint(since, 10, 63); err == nil {
		return q, nil
	}
	if q.Since, err = time.Parse(time.RFC3339Nano, since); err != nil {
		return q, fault.New(fault.Invalid, "parameter since", "%q is neither a sequence number nor an RFC 3339 time", since)
	}
	return q, nil
}

func getEvents(s *Server, c *call) error {
	query, err := c.eventQuery()
	if err != nil {
		return err
	}
	follow, err := c.flag("follow")
	if err != nil {
		return err
	}
	out := &lines{c: c}
	if follow {
		out.start()
		return out.end(s.backend.History.FollowEvents(c.r.Context(), query, func(e Event) error { return out.put(e) }))
	}
	if query.Limit == 0 {
		query.Limit = maxEvents
	}
	events, err := s.backend.History.Events(c.r.Context(), query)
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := out.put(e); err != nil {
			return nil // the reader left
		}
	}
	return out.end(nil)
}

func getChanges(s *Server, c *call) (List[Change], error) {
	tenant, err := c.tenant()
	if err != nil {
		return List[Change]{}, err
	}
	limit, err := c.number("limit")
	if err != nil {
		return List[Change]{}, err
	}
	return listOf(s.backend.History.Changes(c.r.Context(), ChangeQuery{Limit: int(min(limit, maxEvents)), Tenant: tenant}))
}

// getChange hides others' changes from a tenant as if they were not there: ids
// are not its to probe.
func getChange(s *Server, c *call) (Change, error) {
	id := c.r.PathValue("id")
	change, err := s.backend.History.Change(c.r.Context(), id)
	if err != nil {
		return Change{}, err
	}
	if c.who.Role == RoleTenant && !owns(c.who.Tenant, change.Object) {
		return Change{}, fault.New(fault.NotFound, "change "+id, "there is none")
	}
	return change, nil
}

// owns says whether an object belongs to a tenant, or is the tenant.
func owns(tenant string, ref spec.Ref) bool {
	return ref.Tenant == tenant || ref.Kind == spec.KindTenant && ref.Name == tenant
}

func watchChange(s *Server, c *call) error {
	change, err := getChange(s, c)
	if err != nil {
		return err
	}
	out := &lines{c: c}
	return out.end(s.backend.History.FollowChange(c.r.Context(), change.ID, func(now Change) error { return out.put(now) }))
}
