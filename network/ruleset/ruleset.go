package ruleset

import (
	"fmt"
	"hash/fnv"
	"strings"
	"sync/atomic"
)

// Family is an nftables family.
type Family string

// The families in use.
const (
	INet   Family = "inet"
	Netdev Family = "netdev"
)

// Table is all that one table holds. It is not changed once it was loaded or
// compared.
type Table struct {
	Family   Family
	Name     string
	Counters []string
	Sets     []*Set
	Chains   []*Chain

	loaded atomic.Pointer[State] // made when first asked for
}

// Base makes a chain one that the kernel calls.
type Base struct {
	Type     string // filter, nat
	Hook     string // prerouting, input, forward, output, postrouting, ingress
	Priority int32
	Drop     bool   // the policy: drop, or accept
	Device   string // of an ingress hook
}

// Chain is a list of rules. Chains are shared between versions of a table and
// never changed once made.
type Chain struct {
	Name  string
	Base  *Base
	Rules []Rule

	loaded atomic.Pointer[ChainState] // made when first asked for
}

// Rule is expressions that all must match. The comment is kept in the kernel.
type Rule struct {
	Exprs   []Expr
	Comment string
}

// Do makes a rule without a comment.
func Do(exprs ...Expr) Rule { return Rule{Exprs: exprs} }

// Set is a set, or a map where Data is set. Sets are shared between versions of
// a table and never changed once made.
type Set struct {
	Name     string
	Key      []Type
	Data     []Type // nil: a set; {TypeVerdict}: a verdict map
	Interval bool
	Elements []Element
}

// Element is a key, or a range of keys, and what a map holds for it.
type Element struct {
	From, To Value // To is "" where the set has no intervals
	Verdict  Verdict
	Data     Value
}

// Text renders the rule as nft would.
func (r Rule) Text() string {
	words := make([]string, 0, len(r.Exprs)+1)
	for _, e := range r.Exprs {
		words = append(words, e.String())
	}
	if r.Comment != "" {
		words = append(words, fmt.Sprintf("comment %q", r.Comment))
	}
	return strings.Join(words, " ")
}

// Digest names the rule's content. It is kept with the rule in the kernel, so
// that a reader need not decode expressions to see what is there.
func (r Rule) Digest() string {
	h := fnv.New64a()
	h.Write([]byte(r.Text()))
	return fmt.Sprintf("%016x", h.Sum64())
}

// Asks names the sets and maps that the chain's rules look up.
func (c *Chain) Asks() []string {
	var names []string
	for _, r := range c.Rules {
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case In:
				names = append(names, e.Set)
			case Map:
				names = append(names, e.Map)
			case DNAT:
				names = append(names, e.Map)
			}
		}
	}
	return names
}

// Text renders the table in nft's manner, in the order it was made.
func (t *Table) Text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "table %s %s {\n", t.Family, t.Name)
	for _, c := range t.Counters {
		fmt.Fprintf(&text, "\tcounter %s\n", c)
	}
	for _, s := range t.Sets {
		s.render(&text)
	}
	for _, c := range t.Chains {
		c.render(&text)
	}
	text.WriteString("}\n")
	return text.String()
}

func (s *Set) render(text *strings.Builder) {
	kind, of := "set", typesText(s.Key)
	if s.Data != nil {
		kind, of = "map", of+" : "+typesText(s.Data)
	}
	flags := ""
	if s.Interval {
		flags = "; flags interval"
	}
	fmt.Fprintf(text, "\t%s %s {\n\t\ttype %s%s\n", kind, s.Name, of, flags)
	for _, e := range s.Elements {
		fmt.Fprintf(text, "\t\t%s\n", s.elementText(e))
	}
	text.WriteString("\t}\n")
}

func (s *Set) elementText(e Element) string {
	key := rangeText(s.Key, e.From, e.To)
	switch {
	case s.Data == nil:
		return key
	case s.Data[0] == TypeVerdict:
		return key + " : " + e.Verdict.String()
	}
	return key + " : " + rangeText(s.Data, e.Data, "")
}

func typesText(types []Type) string {
	words := make([]string, len(types))
	for i, t := range types {
		words[i] = string(t)
	}
	return strings.Join(words, " . ")
}

func (c *Chain) render(text *strings.Builder) {
	fmt.Fprintf(text, "\tchain %s {\n", c.Name)
	if c.Base != nil {
		fmt.Fprintf(text, "\t\t%s\n", c.Base.Text())
	}
	for _, r := range c.Rules {
		fmt.Fprintf(text, "\t\t%s\n", r.Text())
	}
	text.WriteString("\t}\n")
}

// Text renders the chain's head as nft would.
func (b *Base) Text() string {
	device, policy := "", "accept"
	if b.Device != "" {
		device = fmt.Sprintf(" device %q", b.Device)
	}
	if b.Drop {
		policy = "drop"
	}
	return fmt.Sprintf("type %s hook %s%s priority %d; policy %s;", b.Type, b.Hook, device, b.Priority, policy)
}
