package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// call is one request with the caller the kernel named.
type call struct {
	w   *answer
	r   *http.Request
	who Caller
	// decoding is the token to hold while a large body becomes objects; nil for
	// others.
	decoding chan struct{}
}

// answer remembers whether anything of it was sent.
type answer struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(text []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(text)
}

// Unwrap lets an http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// List is how several things are answered.
type List[T any] struct {
	Items []T `json:"items"`
}

// listOf never answers null.
func listOf[T any](items []T, err error) (List[T], error) {
	if items == nil {
		items = []T{}
	}
	return List[T]{Items: items}, err
}

// pending is an answer that may stand for work still under way.
type pending interface{ underWay() bool }

func (c ChangeRef) underWay() bool   { return c.ID != "" }
func (a ApplyResult) underWay() bool { return len(a.Changes) > 0 }

// answer encodes a value, without its secrets: 202 while work is under way,
// else 200. An object carries its generation as ETag.
func (c *call) answer(value any) error {
	if o, ok := value.(*spec.Object); ok {
		c.w.Header().Set("ETag", etag(o.Metadata.Generation))
	}
	text, err := json.Marshal(redact(value))
	if err != nil {
		return fault.Wrap(fault.Internal, "encode answer", err)
	}
	status := http.StatusOK
	if p, ok := value.(pending); ok && p.underWay() {
		status = http.StatusAccepted
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	// A peer that went away is no news.
	_, _ = c.w.Write(append(text, '\n'))
	return nil
}

func etag(generation uint64) string { return `"` + strconv.FormatUint(generation, 10) + `"` }

// ifMatch is the generation the caller read before, 0 when it read none.
func (c *call) ifMatch() (uint64, error) {
	text := c.r.Header.Get("If-Match")
	if text == "" || text == "*" {
		return 0, nil
	}
	generation, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 64)
	if err != nil || generation == 0 {
		return 0, fault.New(fault.Invalid, "header If-Match", "%q is no generation", text)
	}
	return generation, nil
}

// body reads the whole request body within the route's limit.
func (c *call) body() ([]byte, error) {
	connection := http.NewResponseController(c.w)
	_ = connection.SetReadDeadline(time.Now().Add(bodyTimeout))
	text, err := io.ReadAll(c.r.Body)
	// Left in place it would end the handler too: the server watches the
	// connection with a read while a handler runs.
	_ = connection.SetReadDeadline(time.Time{})
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.New(fault.Invalid, "read request", "the body is longer than %s", spec.Bytes(tooLarge.Limit))
	}
	return text, fault.Wrap(fault.Invalid, "read request", err)
}

// decode reads a JSON body strictly: no unknown field, nothing after the value.
func (c *call) decode(in any) error {
	text, err := c.body()
	if err != nil {
		return err
	}
	if c.decoding != nil {
		select {
		case c.decoding <- struct{}{}:
			defer func() { <-c.decoding }()
		case <-c.r.Context().Done():
			return c.r.Context().Err()
		}
	}
	err = decodeStrict(text, in)
	if _, told := errors.AsType[*fault.Error](err); told { // by the decoder of objects, with its place
		return err
	}
	return fault.Wrap(fault.Invalid, "read request", err)
}

func decodeStrict(text []byte, in any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(in); err != nil {
		return jsonError(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is text after the JSON value")
	}
	return nil
}

// jsonError says what a person needs of the decoder's message.
func jsonError(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the body is empty")
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("there is no field %s", field)
	}
	return err
}

// decodeObjects checks each object as strictly as a file's, numbering them in messages.
func decodeObjects(raw []json.RawMessage) ([]*spec.Object, error) {
	objects := make([]*spec.Object, 0, len(raw))
	for i, text := range raw {
		o, err := decodeObject("objects["+strconv.Itoa(i)+"]", text)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func decodeObject(name string, text []byte) (*spec.Object, error) {
	found, err := spec.Decode(name, text)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fault.New(fault.Invalid, name, "holds %d objects, want one", len(found))
	}
	return found[0], nil
}

// UnmarshalJSON decodes as strictly as a file is decoded.
func (r *ApplyRequest) UnmarshalJSON(text []byte) (err error) {
	var wire struct {
		Objects []json.RawMessage `json:"objects"`
		DryRun  bool              `json:"dryRun"`
	}
	if err := decodeStrict(text, &wire); err != nil {
		return err
	}
	r.DryRun = wire.DryRun
	r.Objects, err = decodeObjects(wire.Objects)
	return err
}

// UnmarshalJSON decodes as strictly as a file is decoded.
func (r *PlanRequest) UnmarshalJSON(text []byte) (err error) {
	var wire struct {
		Objects []json.RawMessage `json:"objects"`
	}
	if err := decodeStrict(text, &wire); err != nil {
		return err
	}
	r.Objects, err = decodeObjects(wire.Objects)
	return err
}

// Values of query parameters. A wrong one is refused and names itself.

func (c *call) query(name string) string { return c.r.URL.Query().Get(name) }

func (c *call) number(name string) (uint64, error) {
	text := c.query(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, fault.New(fault.Invalid, "parameter "+name, "%q is no whole number", text)
	}
	return n, nil
}

func (c *call) flag(name string) (bool, error) {
	text := c.query(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, fault.New(fault.Invalid, "parameter "+name, "%q is neither true nor false", text)
	}
	return on, nil
}

func (c *call) time(name string) (time.Time, error) {
	text := c.query(name)
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "parameter "+name, "%q is no RFC 3339 time", text)
	}
	return at, nil
}

// tenant is the tenant a listing is about: what was asked for, narrowed to a
// tenant caller's own. Empty means all.
func (c *call) tenant() (string, error) {
	asked := c.query("tenant")
	if c.who.Role != RoleTenant {
		return asked, nil
	}
	if asked != "" && asked != c.who.Tenant {
		return "", denied("look at tenant "+asked, c.who)
	}
	return c.who.Tenant, nil
}
