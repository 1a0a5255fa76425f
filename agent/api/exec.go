package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// ExecProtocol is what a connection is upgraded to: frames of package
// agent/frame, version 1.
const ExecProtocol = "gpuhost-frame/1"

func execEndpoint() endpoint {
	return endpoint{in: reflect.TypeFor[ExecRequest](), serve: postExec, stream: true}
}

// postExec starts the command first, so that a refusal is an ordinary answer,
// and then hands the connection over to both sides.
func postExec(s *Server, c *call) error {
	request, err := c.execRequest()
	if err != nil {
		return err
	}
	session, err := s.backend.Instances.Exec(c.r.Context(), c.who, instanceRef(c), request)
	if err != nil {
		return err
	}
	defer session.Close()
	conn, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return fault.Wrap(fault.Internal, "take over the connection", err)
	}
	defer conn.Close()
	// From here on the connection speaks frames; errors end it.
	if err := switchProtocols(conn); err == nil {
		splice(c.r.Context(), conn, buffered.Reader, session)
	}
	return nil
}

func (c *call) execRequest() (ExecRequest, error) {
	var request ExecRequest
	if !strings.EqualFold(c.r.Header.Get("Upgrade"), ExecProtocol) {
		return request, fault.New(fault.Invalid, "exec", "the request asks for no upgrade to %s", ExecProtocol).
			WithHint("send headers Connection: Upgrade and Upgrade: %s", ExecProtocol)
	}
	if err := c.decode(&request); err != nil {
		return request, err
	}
	if len(request.Command) == 0 || request.Command[0] == "" {
		return request, fault.New(fault.Invalid, "exec", "there is no command")
	}
	return request, nil
}

func switchProtocols(conn net.Conn) error {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(conn, "HTTP/1.1 %d Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		http.StatusSwitchingProtocols, ExecProtocol)
	return err
}

// splice copies bytes both ways until the command's side has ended, the caller
// has gone, or the agent stops. The agent never looks into the frames.
func splice(ctx context.Context, conn net.Conn, fromCaller *bufio.Reader, session io.ReadWriteCloser) {
	commandEnded, callerGone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(commandEnded)
		// Whatever ends it, the caller sees whether an exit frame came before.
		_, _ = io.Copy(conn, session)
	}()
	go func() {
		defer close(callerGone)
		if _, err := io.Copy(session, fromCaller); err != nil {
			// A command that listens no more has still to say how it ended: only
			// the caller's own end is one.
			_, _ = io.Copy(io.Discard, fromCaller)
		}
	}()
	select {
	case <-commandEnded:
	case <-callerGone:
	case <-ctx.Done():
	}
	session.Close()
	conn.Close()
	<-commandEnded
	<-callerGone
}
