package services

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// Client is one connection to the process. After an error of the connection it
// is of no more use: close it, dial again and push anew.
type Client struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

// Dial connects to the process that listens on socket. A temporary fault says
// that none does.
func Dial(ctx context.Context, socket string) (*Client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fault.Wrap(fault.Temporary, "reach services", err)
	}
	if err != nil {
		return nil, fmt.Errorf("reach services: %w", err)
	}
	return &Client{conn: conn.(*net.UnixConn)}, nil
}

// Close ends the connection; what is served stays served.
func (c *Client) Close() error { return c.conn.Close() }

// SetVPC makes the process answer on the two sockets, bound in the VPC's router
// namespace, from zone. Nil sockets keep the ones it has; a VPC it does not know
// then is a not-found fault. The files stay the caller's. A zone older than the
// one that is served is a conflict.
func (c *Client) SetVPC(ctx context.Context, vpc spec.UID, udp, tcp *os.File, zone Zone) error {
	if err := zone.Validate(); err != nil {
		return err
	}
	var sockets *Sockets
	if udp != nil && tcp != nil {
		sockets = &Sockets{udp, tcp}
	}
	_, err := c.call(ctx, Request{Op: OpSet, VPC: vpc, Zone: &zone}, sockets)
	return err
}

// RemoveVPC ends the service of a VPC and lets go of its sockets. One that is
// not served is removed already.
func (c *Client) RemoveVPC(ctx context.Context, vpc spec.UID) error {
	_, err := c.call(ctx, Request{Op: OpRemove, VPC: vpc}, nil)
	return err
}

// List says what is served, sorted by uid.
func (c *Client) List(ctx context.Context) ([]VPC, error) {
	reply, err := c.call(ctx, Request{Op: OpList}, nil)
	return reply.VPCs, err
}

// Status says who serves.
func (c *Client) Status(ctx context.Context) (Status, error) {
	reply, err := c.call(ctx, Request{Op: OpStatus}, nil)
	if err != nil || reply.Status == nil {
		return Status{}, err
	}
	return *reply.Status, nil
}

// TakeOver asks the process for all its VPCs and their sockets, which it stops
// reading. The caller serves them and then says [Client.Taken], or closes the
// connection, and the process goes on.
func (c *Client) TakeOver(ctx context.Context, each func(Handed, *Sockets) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.bound(ctx)()
	if err := Send(c.conn, Request{Op: OpHandover}, nil); err != nil {
		return err
	}
	for {
		reply, sockets, err := c.receive()
		if err != nil {
			return err
		}
		if reply.Handed == nil {
			return nil
		}
		if sockets == nil {
			return fault.New(fault.Internal, "take services over", "VPC %s came without sockets", reply.Handed.VPC)
		}
		if err := each(*reply.Handed, sockets); err != nil {
			return err
		}
	}
}

// Taken ends the process that has handed over.
func (c *Client) Taken(ctx context.Context) error {
	_, err := c.call(ctx, Request{Op: OpTaken}, nil)
	return err
}

func (c *Client) call(ctx context.Context, request Request, sockets *Sockets) (Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.bound(ctx)()
	if err := Send(c.conn, request, sockets); err != nil {
		return Reply{}, err
	}
	reply, extra, err := c.receive()
	extra.Close()
	return reply, err
}

func (c *Client) receive() (Reply, *Sockets, error) {
	var reply Reply
	sockets, err := Receive(c.conn, &reply)
	if err != nil {
		return Reply{}, nil, fault.Wrap(fault.Temporary, "ask services", err)
	}
	if reply.Kind != "" {
		sockets.Close()
		return Reply{}, nil, fault.New(reply.Kind, "ask services", "%s", reply.Error)
	}
	return reply, sockets, nil
}

// bound makes ctx end what the connection waits for.
func (c *Client) bound(ctx context.Context) (release func()) {
	_ = c.conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}
