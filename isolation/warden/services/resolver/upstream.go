package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	tryLimit    = 2 * time.Second // one upstream, one transport
	answerLimit = 5 * time.Second // all of them
	maxServers  = 3               // as the C library has it
)

// upstreams are the resolvers of the host, from resolv.conf as it stands or as
// given.
type upstreams struct {
	fixed []string // "address:port"; nil reads path
	path  string

	mu      sync.Mutex
	read    time.Time // modification time of what servers is from
	servers []string
}

// list gives the servers to ask, in order. resolv.conf is read again when it has
// changed: hosts rewrite it at every DHCP lease.
func (u *upstreams) list() ([]string, error) {
	if u.fixed != nil {
		return u.fixed, nil
	}
	info, err := os.Stat(u.path)
	if err != nil {
		return nil, fmt.Errorf("look at resolvers: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if info.ModTime().Equal(u.read) {
		return u.servers, nil
	}
	config, err := dns.ClientConfigFromFile(u.path)
	if err != nil {
		return nil, fmt.Errorf("read resolvers: %w", err)
	}
	u.servers = nil
	for _, server := range config.Servers[:min(len(config.Servers), maxServers)] {
		u.servers = append(u.servers, net.JoinHostPort(server, config.Port))
	}
	u.read = info.ModTime()
	return u.servers, nil
}

// exchange asks one server after the other until one gives a usable answer.
func (u *upstreams) exchange(ctx context.Context, asked *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	servers, err := u.list()
	if err != nil {
		return nil, err
	}
	failed := errors.New("no resolver is known")
	for _, server := range servers {
		answer, err := exchangeWith(ctx, server, asked)
		if err == nil {
			return answer, nil
		}
		failed = err
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// exchangeWith asks over UDP, and over TCP what does not fit. Each query has a
// socket of its own, so a port of its own to be guessed with its id.
func exchangeWith(ctx context.Context, server string, asked *dns.Msg) (*dns.Msg, error) {
	reply, err := try(ctx, "udp", server, asked)
	if err == nil && reply.Truncated {
		reply, err = try(ctx, "tcp", server, asked)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", server, err)
	}
	answer, ok := clean(asked, reply)
	if !ok {
		return nil, fmt.Errorf("ask %s: it answers %s", server, dns.RcodeToString[reply.Rcode])
	}
	return answer, nil
}

func try(ctx context.Context, transport, server string, asked *dns.Msg) (*dns.Msg, error) {
	client := dns.Client{Net: transport, Timeout: tryLimit, UDPSize: udpSize}
	reply, _, err := client.ExchangeContext(ctx, asked, server)
	if err != nil {
		return nil, err
	}
	if !isAnswerTo(asked, reply) {
		return nil, errors.New("it answers another question")
	}
	return reply, nil
}
