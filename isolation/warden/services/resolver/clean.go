package resolver

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	maxTTL         = 3600 // seconds an upstream's answer is passed on for, at most
	maxNegativeTTL = 30
	maxRecords     = 256
	udpSize        = 1232 // bytes that pass any path unfragmented
)

// ask is the query that goes upstream for a tenant's: the question and the DNSSEC
// wishes, nothing else of what the tenant sent.
func ask(query *dns.Msg) *dns.Msg {
	q := query.Question[0]
	m := new(dns.Msg)
	m.Id = dns.Id()
	m.RecursionDesired = true
	m.CheckingDisabled = query.CheckingDisabled
	m.Question = []dns.Question{{Name: strings.ToLower(q.Name), Qtype: q.Qtype, Qclass: dns.ClassINET}}
	m.SetEdns0(udpSize, wantsDNSSEC(query))
	return m
}

// isAnswerTo says whether reply is an upstream's answer to asked and nothing else.
func isAnswerTo(asked, reply *dns.Msg) bool {
	if reply.Id != asked.Id || !reply.Response || len(reply.Question) != 1 {
		return false
	}
	got, want := reply.Question[0], asked.Question[0]
	return strings.EqualFold(got.Name, want.Name) && got.Qtype == want.Qtype && got.Qclass == want.Qclass
}

// clean keeps of an upstream's answer what answers the question: the chain of
// aliases from the name asked for and the records at its end, or the authority of
// a denial. Addresses that lead back into the host are taken out.
func clean(asked, reply *dns.Msg) (answer *dns.Msg, ok bool) {
	if reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return nil, false
	}
	m := &dns.Msg{Question: asked.Question}
	m.Response, m.Rcode = true, reply.Rcode
	m.Answer = chain(asked.Question[0], reply.Answer)
	if len(m.Answer) == 0 || reply.Rcode == dns.RcodeNameError {
		m.Ns = denial(asked.Question[0].Name, reply.Ns)
	}
	return m, true
}

// chain follows aliases from the question's name through records.
func chain(q dns.Question, records []dns.RR) []dns.RR {
	names := map[string]bool{q.Name: true}
	var kept []dns.RR
	for _, rr := range records[:min(len(records), maxRecords)] {
		h := rr.Header()
		owner := strings.ToLower(h.Name)
		if h.Class != dns.ClassINET {
			continue
		}
		if d, isDNAME := rr.(*dns.DNAME); isDNAME && under(names, owner) {
			names[strings.ToLower(d.Target)] = true
		} else if !names[owner] {
			continue
		}
		if alias, isAlias := rr.(*dns.CNAME); isAlias {
			names[strings.ToLower(alias.Target)] = true
		}
		if !leadsInside(rr) {
			kept = append(kept, bounded(rr, maxTTL))
		}
	}
	return kept
}

func under(names map[string]bool, zone string) bool {
	for name := range names {
		if dns.IsSubDomain(zone, name) {
			return true
		}
	}
	return false
}

// denial keeps the authority of a "no": SOA and its proofs, of a zone the name
// is in.
func denial(name string, records []dns.RR) []dns.RR {
	var kept []dns.RR
	for _, rr := range records[:min(len(records), maxRecords)] {
		switch rr.Header().Rrtype {
		case dns.TypeSOA:
			if !dns.IsSubDomain(rr.Header().Name, name) {
				continue
			}
		case dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG:
		default:
			continue
		}
		kept = append(kept, bounded(rr, maxNegativeTTL))
	}
	return kept
}

// bounded is a copy of rr that lives ttl seconds at most.
func bounded(rr dns.RR, ttl uint32) dns.RR {
	rr = dns.Copy(rr)
	rr.Header().Ttl = min(rr.Header().Ttl, ttl)
	return rr
}

// leadsInside says whether rr is an address at which a tenant's software would
// meet itself or a service of the host: the aim of DNS rebinding.
func leadsInside(rr dns.RR) bool {
	var a netip.Addr
	switch v := rr.(type) {
	case *dns.A:
		a, _ = netip.AddrFromSlice(v.A)
	case *dns.AAAA:
		a, _ = netip.AddrFromSlice(v.AAAA)
	default:
		return false
	}
	a = a.Unmap()
	return !a.IsValid() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()
}

// shape makes a stored answer the answer to query. The stored message is shared
// and stays as it is.
func shape(query, stored *dns.Msg, age uint32) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, stored.Rcode)
	m.RecursionAvailable = true
	m.Answer, m.Ns = aged(stored.Answer, age), aged(stored.Ns, age)
	if wantsDNSSEC(query) {
		m.SetEdns0(udpSize, true)
	}
	return m
}

func aged(records []dns.RR, age uint32) []dns.RR {
	out := slices.Clone(records)
	for i, rr := range out {
		out[i] = dns.Copy(rr)
		out[i].Header().Ttl -= min(age, rr.Header().Ttl)
	}
	return out
}

// lifetime is how long, in seconds, a clean answer may be kept.
func lifetime(m *dns.Msg) uint32 {
	ttl := uint32(maxTTL)
	for _, rr := range append(slices.Clone(m.Answer), m.Ns...) {
		ttl = min(ttl, rr.Header().Ttl)
	}
	if len(m.Answer) == 0 {
		ttl = min(ttl, maxNegativeTTL)
	}
	if len(m.Answer)+len(m.Ns) == 0 {
		return 0
	}
	return ttl
}

func wantsDNSSEC(m *dns.Msg) bool {
	opt := m.IsEdns0()
	return opt != nil && opt.Do()
}

// room is how long an answer over UDP may be.
func room(query *dns.Msg) int {
	opt := query.IsEdns0()
	if opt == nil {
		return dns.MinMsgSize
	}
	return max(dns.MinMsgSize, min(int(opt.UDPSize()), udpSize))
}
