package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Apply makes all changes in one transaction: they are in force together, or
// none of them is.
func (c *Conn) Apply(changes ...*ruleset.Changes) error {
	for _, change := range changes {
		if err := c.queue(change); err != nil {
			return errors.Join(err, c.discard())
		}
	}
	if err := c.nft.Flush(); err != nil {
		return fmt.Errorf("load table %s: %w", c.table, err)
	}
	return nil
}

// discard empties the queue of messages that were never sent: one that the
// library itself refuses makes it drop them all.
func (c *Conn) discard() error {
	_ = c.nft.AddSet(&nftables.Set{Table: &nftables.Table{}, Anonymous: true}, nil) // refused: it is not constant
	return c.nft.Flush()
}

func family(f ruleset.Family) nftables.TableFamily {
	if f == ruleset.Netdev {
		return nftables.TableFamilyNetdev
	}
	return nftables.TableFamilyINet
}

// queue writes the messages in the order in which each finds what it refers to.
func (c *Conn) queue(change *ruleset.Changes) error {
	table := &nftables.Table{Family: family(change.Table.Family), Name: change.Table.Name}
	if change.Replace != "" {
		c.nft.DelTable(table)
	}
	if change.NewTable || change.Replace != "" {
		c.nft.AddTable(table)
	}
	for _, name := range change.AddCounters {
		c.nft.AddObj(counter(table, name))
	}
	sets, err := c.addSets(table, change.AddSets)
	if err != nil {
		return err
	}
	for _, chain := range change.AddChains {
		c.nft.AddChain(encodeChain(table, chain))
	}
	for _, chain := range change.SetPolicy {
		c.nft.AddChain(encodeChain(table, chain))
	}
	for _, name := range change.Flush {
		c.nft.FlushChain(&nftables.Chain{Table: table, Name: name})
	}
	if err := c.changeElements(table, change, sets); err != nil {
		return err
	}
	if err := c.fill(table, change.Fill); err != nil {
		return err
	}
	c.deleteObsolete(table, change)
	return nil
}

func counter(table *nftables.Table, name string) *nftables.NamedObj {
	return &nftables.NamedObj{Table: table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}}
}

func (c *Conn) addSets(table *nftables.Table, sets []*ruleset.Set) ([]*nftables.Set, error) {
	var added []*nftables.Set
	for _, s := range sets {
		set, err := encodeSet(table, s)
		if err != nil {
			return nil, err
		}
		if err := c.nft.AddSet(set, nil); err != nil {
			return nil, fmt.Errorf("add set %s: %w", s.Name, err)
		}
		added = append(added, set)
	}
	return added, nil
}

func (c *Conn) changeElements(table *nftables.Table, change *ruleset.Changes, added []*nftables.Set) error {
	for _, d := range change.DropElements {
		set, err := encodeSet(table, d.Set)
		if err != nil {
			return err
		}
		if err := c.nft.SetDeleteElements(set, encodeElements(d.Set, d.Elements)); err != nil {
			return fmt.Errorf("drop elements of %s: %w", d.Set.Name, err)
		}
	}
	for i, s := range change.AddSets {
		if err := c.nft.SetAddElements(added[i], encodeElements(s, s.Elements)); err != nil {
			return fmt.Errorf("fill set %s: %w", s.Name, err)
		}
	}
	for _, d := range change.AddElements {
		set, err := encodeSet(table, d.Set)
		if err != nil {
			return err
		}
		if err := c.nft.SetAddElements(set, encodeElements(d.Set, d.Elements)); err != nil {
			return fmt.Errorf("add elements to %s: %w", d.Set.Name, err)
		}
	}
	return nil
}

func (c *Conn) fill(table *nftables.Table, chains []*ruleset.Chain) error {
	for _, chain := range chains {
		of := &nftables.Chain{Table: table, Name: chain.Name}
		for _, rule := range chain.Rules {
			exprs, err := encode(rule)
			if err != nil {
				return err
			}
			c.nft.AddRule(&nftables.Rule{Table: table, Chain: of, Exprs: exprs, UserData: label(rule)})
		}
	}
	return nil
}

func (c *Conn) deleteObsolete(table *nftables.Table, change *ruleset.Changes) {
	for _, s := range change.DeleteSets {
		c.nft.DelSet(&nftables.Set{Table: table, Name: s.Name})
	}
	for _, name := range change.DeleteChains {
		c.nft.DelChain(&nftables.Chain{Table: table, Name: name})
	}
	for _, name := range change.DeleteCounter {
		c.nft.DeleteObject(counter(table, name))
	}
}

func encodeChain(table *nftables.Table, chain *ruleset.Chain) *nftables.Chain {
	out := &nftables.Chain{Table: table, Name: chain.Name}
	if chain.Base == nil {
		return out
	}
	policy := nftables.ChainPolicyAccept
	if chain.Base.Drop {
		policy = nftables.ChainPolicyDrop
	}
	out.Type = nftables.ChainType(chain.Base.Type)
	out.Hooknum = nftables.ChainHookRef(nftables.ChainHook(hookNumber(chain.Base.Hook)))
	out.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(chain.Base.Priority))
	out.Policy = &policy
	out.Device = chain.Base.Device
	return out
}

// hooks by their number in the kernel; netdev counts for itself.
func hookNumber(name string) uint32 {
	switch name {
	case "input":
		return unix.NF_INET_LOCAL_IN
	case "forward":
		return unix.NF_INET_FORWARD
	case "output":
		return unix.NF_INET_LOCAL_OUT
	case "postrouting":
		return unix.NF_INET_POST_ROUTING
	case "ingress":
		return unix.NF_NETDEV_INGRESS
	}
	return unix.NF_INET_PRE_ROUTING
}

func hookName(f ruleset.Family, number uint32) string {
	if f == ruleset.Netdev {
		return "ingress"
	}
	names := map[uint32]string{
		unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
		unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
	}
	return names[number]
}

// label is what a rule carries to be known again: its comment and its digest, as
// a comment that nft shows.
func label(rule ruleset.Rule) []byte {
	text := "#" + rule.Digest()
	if rule.Comment != "" {
		text = rule.Comment + " " + text
	}
	return userdata.AppendString(nil, userdata.TypeComment, text)
}

// DeleteTable removes one table with all it holds. A table that is not there is
// no error.
func (c *Conn) DeleteTable(f ruleset.Family) error {
	c.nft.DelTable(&nftables.Table{Family: family(f), Name: c.table})
	if err := c.nft.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete table %s: %w", c.table, err)
	}
	return nil
}
