package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
)

// ForeignChain is a base chain of somebody else's whose policy drops what we may
// have let through: an accept of ours cannot override it.
type ForeignChain struct {
	Family string // "ip", "inet", "bridge"
	Table  string
	Chain  string
	Hook   string // "forward", "input"
}

// String gives the chain as `nft list` names it.
func (f ForeignChain) String() string { return f.Family + " " + f.Table + " " + f.Chain }

// ForeignDrops lists the base chains of other tables that drop by policy where
// tenants' packets pass the host: forward, prerouting and postrouting.
func (c *Conn) ForeignDrops() ([]ForeignChain, error) {
	chains, err := c.nft.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []ForeignChain
	for _, chain := range chains {
		if chain.Table.Name == c.table || !drops(chain) {
			continue
		}
		out = append(out, ForeignChain{
			Family: familyName(chain.Table.Family), Table: chain.Table.Name, Chain: chain.Name, Hook: tenantHook(*chain.Hooknum),
		})
	}
	return out, nil
}

func drops(c *nftables.Chain) bool {
	if c.Hooknum == nil || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
		return false
	}
	inet := []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet}
	return slices.Contains(inet, c.Table.Family) && tenantHook(*c.Hooknum) != ""
}

// tenantHook names the hooks that forwarded packets pass; "" for the others.
func tenantHook(h nftables.ChainHook) string {
	switch h {
	case *nftables.ChainHookPrerouting:
		return "prerouting"
	case *nftables.ChainHookForward:
		return "forward"
	case *nftables.ChainHookPostrouting:
		return "postrouting"
	default:
		return ""
	}
}

func familyName(f nftables.TableFamily) string {
	if f == nftables.TableFamilyIPv4 {
		return "ip"
	}
	return "inet"
}
