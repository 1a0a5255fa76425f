package resolver

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/gpuhost/gpuhost/isolation/warden/services"
)

func exampleZone() services.Zone {
	return services.Zone{Generation: 7, Domain: "default.internal", Hosts: []services.Host{
		{Name: "train-1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.10"), netip.MustParseAddr("fd00::a")}},
		{Name: "eip", Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.10")}},
		{Name: "empty"},
	}}
}

func TestDecide(t *testing.T) {
	zone := newTable(exampleZone())
	tests := []struct {
		query string
		want  string
	}{
		{"train-1. A", "NOERROR 10.0.1.10"},
		{"TRAIN-1.Default.Internal. A", "NOERROR 10.0.1.10"},
		{"train-1.default.internal. AAAA", "NOERROR fd00::a"},
		{"train-1. MX", "NOERROR"},
		{"empty. A", "NOERROR"},
		{"default.internal. SOA", "NOERROR"},
		{"train-2. A", "NXDOMAIN"},
		{"train-2.default.internal. A", "NXDOMAIN"},
		{"train-1.other.internal. A", "NXDOMAIN"},
		{"a.train-1.default.internal. A", "NXDOMAIN"},
		{"com. A", "NXDOMAIN"},
		{"com. NS", "forward"},
		{". NS", "forward"},
		{"example.com. A", "forward"},
		{"notinternal. TXT", "forward"},
		{"printer.local. A", "NXDOMAIN"},
		{"localhost. A", "NXDOMAIN"},

		{"10.1.0.10.in-addr.arpa. PTR", "NOERROR train-1.default.internal."},
		{"10.1.0.10.in-addr.arpa. TXT", "NOERROR"},
		{"10.113.0.203.in-addr.arpa. PTR", "NOERROR eip.default.internal."},
		{"11.1.0.10.in-addr.arpa. PTR", "NXDOMAIN"},
		{"10.in-addr.arpa. SOA", "NXDOMAIN"},
		{"1.16.172.in-addr.arpa. NS", "NXDOMAIN"},
		{"1.32.172.in-addr.arpa. NS", "forward"},
		{"172.in-addr.arpa. NS", "forward"},
		{"254.169.254.169.in-addr.arpa. PTR", "NXDOMAIN"},
		{"1.1.0.127.in-addr.arpa. PTR", "NXDOMAIN"},
		{"1.64.100.in-addr.arpa. PTR", "NXDOMAIN"},
		{"8.8.8.8.in-addr.arpa. PTR", "forward"},
		{"x.8.in-addr.arpa. PTR", "forward"},
		{"x.1.0.10.in-addr.arpa. PTR", "NXDOMAIN"},
		{"256.in-addr.arpa. PTR", "forward"},
		{"in-addr.arpa. NS", "forward"},
		{"0.d.f.ip6.arpa. PTR", "NXDOMAIN"},
		{"8.e.f.ip6.arpa. PTR", "NXDOMAIN"},
		{"1.0.0.2.ip6.arpa. PTR", "forward"},
		{reverse("::1") + " PTR", "NXDOMAIN"},
		{reverse("fd00::a") + " PTR", "NOERROR train-1.default.internal."},
		{reverse("2001:db8::1") + " PTR", "forward"},

		{"example.com. ANY", "REFUSED"},
		{"default.internal. AXFR", "REFUSED"},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			if got := text(zone.decide(question(tt.query))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDecideOddQueries(t *testing.T) {
	zone := newTable(exampleZone())
	chaos := question("version.bind. TXT")
	chaos.Question[0].Qclass = dns.ClassCHAOS
	update := question("train-1. A")
	update.Opcode = dns.OpcodeUpdate
	two := question("train-1. A")
	two.Question = append(two.Question, two.Question[0])
	none := question("train-1. A")
	none.Question = nil
	got := map[string]string{
		"chaos": text(zone.decide(chaos)), "update": text(zone.decide(update)),
		"two": text(zone.decide(two)), "none": text(zone.decide(none)),
	}
	want := map[string]string{"chaos": "REFUSED", "update": "NOTIMP", "two": "FORMERR", "none": "FORMERR"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestClean(t *testing.T) {
	tests := []struct {
		name   string
		asked  string
		rcode  int
		answer []string
		ns     []string
		want   []string // nil: unusable
	}{
		{name: "plain", asked: "a.example. A", answer: []string{"a.example. 60 IN A 203.0.113.1"},
			want: []string{"a.example. 60 A 203.0.113.1"}},
		{name: "alias chain", asked: "a.example. A",
			answer: []string{"a.example. 60 IN CNAME b.example.", "B.example. 60 IN A 203.0.113.1"},
			want:   []string{"a.example. 60 CNAME b.example.", "B.example. 60 A 203.0.113.1"}},
		{name: "record nobody asked for", asked: "a.example. A",
			answer: []string{"a.example. 60 IN A 203.0.113.1", "bank.example. 60 IN A 203.0.113.66"},
			want:   []string{"a.example. 60 A 203.0.113.1"}},
		{name: "rebinding", asked: "a.example. A",
			answer: []string{"a.example. 60 IN A 127.0.0.1", "a.example. 60 IN A 169.254.169.254", "a.example. 60 IN A 0.0.0.0", "a.example. 60 IN A 10.9.9.9"},
			want:   []string{"a.example. 60 A 10.9.9.9"}},
		{name: "rebinding mapped", asked: "a.example. AAAA",
			answer: []string{"a.example. 60 IN AAAA ::1", "a.example. 60 IN AAAA ::ffff:127.0.0.1", "a.example. 60 IN AAAA fe80::1"}, want: []string{}},
		{name: "long life", asked: "a.example. A", answer: []string{"a.example. 999999 IN A 203.0.113.1"},
			want: []string{"a.example. 3600 A 203.0.113.1"}},
		{name: "denial", asked: "a.example. A", rcode: dns.RcodeNameError,
			ns:   []string{"example. 900 IN SOA ns.example. m.example. 1 2 3 4 5", "example. 900 IN NS evil.example.", "other. 900 IN SOA ns. m. 1 2 3 4 5"},
			want: []string{"example. 30 SOA ns.example. m.example. 1 2 3 4 5"}},
		{name: "refused", asked: "a.example. A", rcode: dns.RcodeRefused},
		{name: "servfail", asked: "a.example. A", rcode: dns.RcodeServerFailure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := ask(question(tt.asked))
			reply := new(dns.Msg).SetRcode(asked, tt.rcode)
			reply.Answer, reply.Ns = records(t, tt.answer), records(t, tt.ns)
			m, ok := clean(asked, reply)
			if ok != (tt.want != nil) {
				t.Fatalf("usable %v", ok)
			}
			if !ok {
				return
			}
			got := []string{}
			for _, rr := range append(m.Answer, m.Ns...) {
				h := rr.Header()
				data := strings.TrimPrefix(rr.String(), h.String())
				got = append(got, fmt.Sprintf("%s %d %s %s", h.Name, h.Ttl, dns.TypeToString[h.Rrtype], data))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzParse feeds what a tenant may send through parsing, deciding and packing.
func FuzzParse(f *testing.F) {
	zone := newTable(exampleZone())
	for _, q := range []string{"train-1. A", "10.1.0.10.in-addr.arpa. PTR", "example.com. ANY"} {
		packet, err := question(q).Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		query, _ := parse(packet)
		if query == nil {
			return
		}
		if m := zone.decide(query); m != nil {
			if reply := pack(query, m, room(query)); len(reply) > udpSize {
				t.Fatalf("answer of %d bytes", len(reply))
			}
			return
		}
		asked := ask(query)
		if _, err := asked.Pack(); err == nil && len(asked.Question) != 1 {
			t.Fatal("forwards another number of questions")
		}
	})
}

func question(text string) *dns.Msg {
	name, kind, _ := strings.Cut(text, " ")
	return new(dns.Msg).SetQuestion(name, dns.StringToType[kind])
}

func reverse(address string) string {
	name, err := dns.ReverseAddr(address)
	if err != nil {
		panic(err)
	}
	return name
}

// text is an answer in short: its code and what its records say.
func text(m *dns.Msg) string {
	if m == nil {
		return "forward"
	}
	out := dns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		out += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
	}
	return out
}

func records(t *testing.T, lines []string) (rrs []dns.RR) {
	t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return rrs
}
