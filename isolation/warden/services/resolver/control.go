package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

// Serve answers the agent on listener until ctx ends or a successor has taken
// over; then it returns once all answers under way are sent, or after the time
// one may take.
func (s *Server) Serve(ctx context.Context, listener *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-s.taken:
		}
		listener.Close()
	}()
	for {
		conn, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go s.converse(ctx, conn)
	}
	s.finish()
	return nil
}

func (s *Server) finish() {
	s.mu.Lock()
	for _, v := range s.vpcs {
		s.pause(v)
	}
	s.mu.Unlock()
	sent := make(chan struct{})
	go func() {
		s.answers.Wait()
		close(sent)
	}()
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	select {
	case <-sent:
	case <-limit.C:
	}
}

// converse serves one connection of root or of this process's own user.
func (s *Server) converse(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if !mayControl(conn) {
		return
	}
	var begun *handover
	for {
		var request services.Request
		sockets, err := services.Receive(conn, &request)
		if err != nil {
			break
		}
		if err := request.Validate(sockets); err != nil {
			sockets.Close()
			if services.Send(conn, failure(err), nil) != nil {
				break
			}
			continue
		}
		if request.Op == services.OpHandover {
			begun = s.hand(conn, begun)
			continue
		}
		if request.Op == services.OpTaken && begun != nil {
			_ = services.Send(conn, services.Reply{}, nil) // it serves already, heard or not
			begun.Commit()
			return
		}
		if services.Send(conn, s.do(request, sockets), nil) != nil {
			break
		}
	}
	if begun != nil {
		for _, uid := range begun.Abort() {
			fmt.Fprintf(os.Stderr, "services: VPC %s cannot be read again and is let go of\n", uid)
		}
	}
}

func mayControl(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return ctlErr == nil && err == nil && (peer.Uid == 0 || int(peer.Uid) == os.Getuid())
}

func (s *Server) do(request services.Request, sockets *services.Sockets) services.Reply {
	var err error
	switch request.Op {
	case services.OpSet:
		err = s.Set(request.VPC, *request.Zone, sockets)
	case services.OpRemove:
		err = s.Remove(request.VPC)
	case services.OpList:
		return services.Reply{VPCs: s.List()}
	case services.OpStatus:
		status := s.Status()
		return services.Reply{Status: &status}
	case services.OpTaken:
		err = fault.New(fault.Conflict, "end", "nothing was handed over")
	}
	if err != nil {
		return failure(err)
	}
	return services.Reply{}
}

// hand begins a handover and sends all VPCs with their sockets, then an empty reply.
// One that was begun on this connection stays as it is, whatever is asked.
func (s *Server) hand(conn *net.UnixConn, begun *handover) *handover {
	next, err := s.handOver()
	if err != nil {
		_ = services.Send(conn, failure(err), nil)
		return begun
	}
	for _, v := range next.vpcs {
		handed := services.Handed{VPC: v.uid, Zone: v.table.Load().zone}
		if services.Send(conn, services.Reply{Handed: &handed}, v.sockets) != nil {
			conn.Close() // the next read ends the conversation, and the handover
			return next
		}
	}
	_ = services.Send(conn, services.Reply{}, nil)
	return next
}

func failure(err error) services.Reply {
	return services.Reply{Kind: fault.KindOf(err), Error: err.Error()}
}
