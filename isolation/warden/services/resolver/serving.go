package resolver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

const (
	maxQuery    = 4096             // bytes; a query is a name and a few options
	idleLimit   = 10 * time.Second // of a TCP connection
	headerBytes = 12
)

// serving is the reading of one VPC's two sockets. It has descriptors of its
// own, so that it can end while the sockets live on in a successor.
type serving struct {
	vpc  *vpc
	udp  *net.UDPConn
	tcp  *net.TCPListener
	wait sync.WaitGroup // the two loops and all answers under way
}

// serve starts to read the sockets, which stay the caller's.
func (v *vpc) serve(sockets *services.Sockets) (*serving, error) {
	packets, err := net.FilePacketConn(sockets.UDP)
	if err != nil {
		return nil, fmt.Errorf("take UDP socket: %w", err)
	}
	udp, ok := packets.(*net.UDPConn)
	if !ok {
		packets.Close()
		return nil, errors.New("take UDP socket: it is none")
	}
	listener, err := net.FileListener(sockets.TCP)
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("take TCP socket: %w", err)
	}
	tcp, ok := listener.(*net.TCPListener)
	if !ok {
		udp.Close()
		listener.Close()
		return nil, errors.New("take TCP socket: it is none")
	}
	s := &serving{vpc: v, udp: udp, tcp: tcp}
	s.wait.Go(s.readPackets)
	s.wait.Go(s.acceptStreams)
	return s, nil
}

// stop ends the reading at once; answers under way are still sent. done is called
// after the last.
func (s *serving) stop(done func()) {
	past := time.Unix(1, 0)
	_ = s.udp.SetReadDeadline(past)
	_ = s.tcp.SetDeadline(past)
	go func() {
		s.wait.Wait()
		s.udp.Close()
		s.tcp.Close()
		done()
	}()
}

func (s *serving) readPackets() {
	packet := make([]byte, maxQuery)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(packet)
		if isOver(err) {
			return
		}
		if err == nil { // else an ICMP error of an earlier answer
			s.answerPacket(packet[:n], from)
		}
	}
}

func isOver(err error) bool {
	var timeout net.Error
	return errors.Is(err, net.ErrClosed) || (errors.As(err, &timeout) && timeout.Timeout())
}

func (s *serving) answerPacket(packet []byte, from netip.AddrPort) {
	query, refusal := parse(packet)
	if query == nil {
		s.sendPacket(refusal, from)
		return
	}
	now, later := s.vpc.answer(query)
	if later == nil {
		s.sendPacket(pack(query, now, room(query)), from)
		return
	}
	s.wait.Go(func() { s.sendPacket(pack(query, later(), room(query)), from) })
}

func (s *serving) sendPacket(packet []byte, to netip.AddrPort) {
	if packet != nil {
		_, _ = s.udp.WriteToUDPAddrPort(packet, to) // a lost answer is asked for again
	}
}

func (s *serving) acceptStreams() {
	slots := make(chan struct{}, connections)
	for {
		conn, err := s.tcp.AcceptTCP()
		if isOver(err) {
			return
		}
		if err != nil {
			continue // the client was faster gone than taken
		}
		select {
		case slots <- struct{}{}:
			s.wait.Go(func() {
				defer func() { <-slots }()
				s.answerStream(conn)
			})
		default:
			conn.Close()
		}
	}
}

// answerStream answers a connection's queries one after the other.
func (s *serving) answerStream(conn *net.TCPConn) {
	defer conn.Close()
	for {
		if err := conn.SetDeadline(time.Now().Add(idleLimit)); err != nil {
			return
		}
		packet, err := readStream(conn)
		if err != nil {
			return
		}
		query, reply := parse(packet)
		if query != nil {
			now, later := s.vpc.answer(query)
			if later != nil {
				now = later()
			}
			reply = pack(query, now, dns.MaxMsgSize)
		}
		if reply == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

func readStream(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > maxQuery {
		return nil, errors.New("query too long")
	}
	packet := make([]byte, n)
	_, err := io.ReadFull(r, packet)
	return packet, err
}

// parse reads a query. What is none gets a refusal if it has at least a header
// that asks for something, else silence: an answer to an answer is a loop.
func parse(packet []byte) (query *dns.Msg, refusal []byte) {
	query = new(dns.Msg)
	if query.Unpack(packet) == nil {
		return query, nil
	}
	if len(packet) < headerBytes || packet[2]&0x80 != 0 {
		return nil, nil
	}
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Id: binary.BigEndian.Uint16(packet), Response: true, Rcode: dns.RcodeFormatError}}
	refusal, err := m.Pack()
	if err != nil {
		return nil, nil
	}
	return nil, refusal
}

// pack makes the bytes of an answer of at most size.
func pack(query, answer *dns.Msg, size int) []byte {
	if answer == nil {
		return nil
	}
	if query.IsEdns0() != nil && answer.IsEdns0() == nil {
		answer.SetEdns0(udpSize, false)
	}
	answer.Compress = true
	answer.Truncate(size)
	packet, err := answer.Pack()
	if err != nil {
		return nil
	}
	return packet
}
