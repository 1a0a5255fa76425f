package resolver

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

// localTTL is how long, in seconds, a client may keep an instance's address: an
// instance that moves is found again within it.
const localTTL = 5

// table is a zone made ready for lookup. It is immutable.
type table struct {
	zone      services.Zone
	domain    string // ".default.internal."
	addresses map[string][]netip.Addr
	names     map[string]string // reverse name -> full name
}

func newTable(zone services.Zone) *table {
	t := &table{
		zone: zone, domain: "." + dns.Fqdn(zone.Domain),
		addresses: make(map[string][]netip.Addr, len(zone.Hosts)), names: make(map[string]string, len(zone.Hosts)),
	}
	for _, h := range zone.Hosts {
		for _, a := range h.Addresses {
			a = a.Unmap()
			t.addresses[h.Name] = append(t.addresses[h.Name], a)
			if reverse, err := dns.ReverseAddr(a.String()); err == nil {
				t.names[reverse] = h.Name + t.domain
			}
		}
		if len(h.Addresses) == 0 {
			t.addresses[h.Name] = nil
		}
	}
	return t
}

// decide answers a query without asking anybody, or returns nil: then it is one
// to forward.
func (t *table) decide(query *dns.Msg) *dns.Msg {
	switch {
	case query.Opcode != dns.OpcodeQuery:
		return refuse(query, dns.RcodeNotImplemented)
	case len(query.Question) != 1:
		return refuse(query, dns.RcodeFormatError)
	}
	q := query.Question[0]
	if q.Qclass != dns.ClassINET || isMeta(q.Qtype) {
		return refuse(query, dns.RcodeRefused)
	}
	name := strings.ToLower(q.Name)
	if host, ok := t.hostOf(name); ok {
		return t.answerHost(query, host)
	}
	if full, ok := t.names[name]; ok {
		return answerName(query, full)
	}
	if name == t.domain[1:] {
		return denied(query, dns.RcodeSuccess)
	}
	if isPrivate(name) || isBare(name, q.Qtype) {
		return denied(query, dns.RcodeNameError)
	}
	return nil
}

// hostOf takes "train-1." or "train-1.default.internal." to a known "train-1".
func (t *table) hostOf(name string) (host string, ok bool) {
	host, ok = strings.CutSuffix(name, t.domain)
	if !ok {
		host = strings.TrimSuffix(name, ".")
	}
	_, ok = t.addresses[host]
	return host, ok
}

func (t *table) answerHost(query *dns.Msg, host string) *dns.Msg {
	q := query.Question[0]
	m := local(query, dns.RcodeSuccess)
	for _, a := range t.addresses[host] {
		header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: localTTL}
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{authority()}
	}
	return m
}

func answerName(query *dns.Msg, full string) *dns.Msg {
	q := query.Question[0]
	if q.Qtype != dns.TypePTR {
		return denied(query, dns.RcodeSuccess)
	}
	m := local(query, dns.RcodeSuccess)
	header := dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: localTTL}
	m.Answer = []dns.RR{&dns.PTR{Hdr: header, Ptr: full}}
	return m
}

// denied is an authoritative "no such name" or, with success, "no such record".
func denied(query *dns.Msg, rcode int) *dns.Msg {
	m := local(query, rcode)
	m.Ns = []dns.RR{authority()}
	return m
}

func local(query *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, rcode)
	m.Authoritative, m.RecursionAvailable = true, true
	return m
}

func refuse(query *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, rcode)
	m.RecursionAvailable = true
	return m
}

// authority lets clients keep a denial for as long as an answer.
func authority() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: "internal.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: localTTL},
		Ns:  "internal.", Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: localTTL,
	}
}

// isMeta says whether a type asks for more than records of one type.
func isMeta(qtype uint16) bool {
	return qtype == dns.TypeANY || (qtype >= dns.TypeTKEY && qtype <= dns.TypeMAILA) || qtype == dns.TypeOPT
}

// isBare says whether a name of one label asks for a machine: search lists make
// such queries, which are nobody's business outside.
func isBare(name string, qtype uint16) bool {
	return (qtype == dns.TypeA || qtype == dns.TypeAAAA) && name != "." && strings.Count(name, ".") == 1
}

// isPrivate says whether name lies in a zone that is this host's or nobody's: the
// special names of RFC 6761 and the reverse zones of addresses that are not
// global (RFC 6303).
func isPrivate(name string) bool {
	for _, zone := range []string{"internal.", "local.", "localhost.", "invalid.", "onion.", "home.arpa."} {
		if dns.IsSubDomain(zone, name) {
			return true
		}
	}
	network, ok := reversed(name)
	return ok && slices.ContainsFunc(notGlobal(), func(p netip.Prefix) bool { return p.Overlaps(network) && p.Bits() <= network.Bits() })
}

// reversed is the network whose reverse zone name is in, with as many bits as
// the name has labels for.
func reversed(name string) (netip.Prefix, bool) {
	if labels, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		return reversedV4(strings.Split(labels, "."))
	}
	if labels, ok := strings.CutSuffix(name, ".ip6.arpa."); ok {
		return reversedV6(strings.Split(labels, "."))
	}
	return netip.Prefix{}, false
}

func reversedV4(labels []string) (netip.Prefix, bool) {
	var octets [4]byte
	slices.Reverse(labels)
	labels = labels[:min(len(labels), 4)]
	for i, label := range labels {
		n, ok := decimal(label)
		if !ok {
			labels = labels[:i]
			break
		}
		octets[i] = n
	}
	return netip.PrefixFrom(netip.AddrFrom4(octets), 8*len(labels)), len(labels) > 0
}

func reversedV6(labels []string) (netip.Prefix, bool) {
	var octets [16]byte
	slices.Reverse(labels)
	labels = labels[:min(len(labels), 32)]
	for i, label := range labels {
		n := strings.Index("0123456789abcdef", label)
		if len(label) != 1 || n < 0 {
			labels = labels[:i]
			break
		}
		octets[i/2] |= byte(n) << (4 * (1 - i%2))
	}
	return netip.PrefixFrom(netip.AddrFrom16(octets), 4*len(labels)), len(labels) > 0
}

func decimal(label string) (byte, bool) {
	if label == "" || len(label) > 3 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(label) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return byte(n), n <= 255
}

// notGlobal are the networks whose addresses mean something on this host or in a
// VPC only.
func notGlobal() []netip.Prefix {
	return []netip.Prefix{
		prefix4(0, 0, 8), prefix4(10, 0, 8), prefix4(100, 64, 10), prefix4(127, 0, 8), prefix4(169, 254, 16),
		prefix4(172, 16, 12), prefix4(192, 168, 16),
		netip.PrefixFrom(netip.IPv6Unspecified(), 127), // :: and ::1
		prefix6(0xfc, 0x00, 7), prefix6(0xfe, 0x80, 10),
	}
}

func prefix4(a, b byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{a, b}), bits)
}

func prefix6(a, b byte, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{a, b}), bits)
}
