package services

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/agent/fault"
	"github.com/gpuhost/gpuhost/agent/spec"
)

// maxMessage bounds one message: a zone of maxHosts with room to spare.
const maxMessage = 4 << 20

// Op is what a request asks for.
type Op string

// The operations.
const (
	OpSet    Op = "set"
	OpRemove Op = "remove"
	OpList   Op = "list"
	OpStatus Op = "status"
	// OpHandover makes the process stop reading its sockets and pass all of them
	// on, one reply a VPC and a last one without; OpTaken then ends it. A
	// connection that ends before OpTaken makes it go on.
	OpHandover Op = "handover"
	OpTaken    Op = "taken"
)

// Request is one request of the agent, or of a successor process.
type Request struct {
	Op   Op       `json:"op"`
	VPC  spec.UID `json:"vpc,omitempty"`
	Zone *Zone    `json:"zone,omitempty"`
}

// Reply answers one request.
type Reply struct {
	Kind   fault.Kind `json:"kind,omitempty"` // of the error
	Error  string     `json:"error,omitempty"`
	VPCs   []VPC      `json:"vpcs,omitempty"`
	Status *Status    `json:"status,omitempty"`
	// Handed is one VPC of a handover, with its sockets beside it.
	Handed *Handed `json:"handed,omitempty"`
}

// Handed is a VPC that goes to a successor.
type Handed struct {
	VPC  spec.UID `json:"vpc"`
	Zone Zone     `json:"zone"`
}

// Sockets are the two of one VPC's resolver.
type Sockets struct {
	UDP, TCP *os.File
}

// Close closes both.
func (s *Sockets) Close() {
	if s != nil {
		s.UDP.Close()
		s.TCP.Close()
	}
}

// Validate refuses a request that no agent sends.
func (r Request) Validate(sockets *Sockets) error {
	switch r.Op {
	case OpSet:
		if r.VPC == "" || r.Zone == nil {
			return invalid("set needs a VPC and a zone")
		}
		return r.Zone.Validate()
	case OpRemove:
		if r.VPC == "" {
			return invalid("remove needs a VPC")
		}
	case OpList, OpStatus, OpHandover, OpTaken:
	default:
		return fault.New(fault.Unsupported, "services", "unknown operation %q", r.Op)
	}
	if sockets != nil {
		return invalid("%s takes no sockets", r.Op)
	}
	return nil
}

// Send writes one message with the sockets, or nil, beside it.
func Send(conn *net.UnixConn, message any, sockets *Sockets) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxMessage {
		return fault.New(fault.Exhausted, "send message", "%d bytes, at most %d", len(body), maxMessage)
	}
	packet := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	rights, err := sockets.rights()
	if err != nil {
		return err
	}
	n, _, err := conn.WriteMsgUnix(packet, rights, nil)
	runtime.KeepAlive(sockets)
	if err == nil && n < len(packet) {
		_, err = conn.Write(packet[n:])
	}
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// rights are the descriptors as a control message. They are not asked for with
// Fd, which may make the sockets blocking for whoever shares them.
func (s *Sockets) rights() ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	var fds []int
	for _, file := range []*os.File{s.UDP, s.TCP} {
		raw, err := file.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, fmt.Errorf("send sockets: %w", err)
		}
	}
	return unix.UnixRights(fds...), nil
}

// Receive reads one message and the sockets that came with it, nil for none. It
// takes no more than two descriptors whatever the peer sends.
func Receive(conn *net.UnixConn, message any) (*Sockets, error) {
	var header [4]byte
	rights := make([]byte, unix.CmsgSpace(2*4))
	n, rn, _, _, err := conn.ReadMsgUnix(header[:], rights)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	sockets, err := parseRights(rights[:rn])
	if err != nil {
		return nil, err
	}
	if err := receiveBody(conn, header, n, message); err != nil {
		sockets.Close()
		return nil, err
	}
	return sockets, nil
}

func receiveBody(r io.Reader, header [4]byte, have int, message any) error {
	if _, err := io.ReadFull(r, header[have:]); err != nil {
		return fmt.Errorf("receive message: %w", err)
	}
	return decode(r, binary.BigEndian.Uint32(header[:]), message)
}

// decode reads size bytes of strict JSON into message.
func decode(r io.Reader, size uint32, message any) error {
	if size > maxMessage {
		return fault.New(fault.Invalid, "receive message", "%d bytes, at most %d", size, maxMessage)
	}
	limited := &io.LimitedReader{R: r, N: int64(size)}
	decoder := json.NewDecoder(limited)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(message); err != nil {
		return fault.Wrap(fault.Invalid, "decode message", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) || limited.N != 0 {
		return fault.New(fault.Invalid, "decode message", "more than one value")
	}
	return nil
}

func parseRights(oob []byte) (*Sockets, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive sockets: %w", err)
	}
	var fds []int
	for _, m := range messages {
		got, err := unix.ParseUnixRights(&m)
		if err == nil {
			fds = append(fds, got...)
		}
	}
	if len(fds) != 2 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fault.New(fault.Invalid, "receive sockets", "%d came, want 2", len(fds))
	}
	return &Sockets{UDP: os.NewFile(uintptr(fds[0]), "udp"), TCP: os.NewFile(uintptr(fds[1]), "tcp")}, nil
}
