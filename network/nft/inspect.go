package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// ReadChains reads some chains of a table back, whatever else it holds. What is
// not there is not in the answer.
func (c *Conn) ReadChains(f ruleset.Family, names ...string) (*ruleset.State, error) {
	state := &ruleset.State{}
	for _, name := range names {
		messages, err := c.ask(f, unix.NFT_MSG_GETCHAIN, 0,
			text(unix.NFTA_CHAIN_TABLE, c.table), text(unix.NFTA_CHAIN_NAME, name))
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read chain %s: %w", name, err)
		}
		for _, m := range messages {
			_, chain, err := decodeChain(f, m)
			if err != nil {
				return nil, fmt.Errorf("decode chain %s: %w", name, err)
			}
			state.Chains = append(state.Chains, chain)
		}
		if err := c.readRules(f, state, text(unix.NFTA_RULE_CHAIN, name)); err != nil {
			return nil, err
		}
	}
	return state, nil
}

// ReadSet reads one set or map back; nil when there is none of that name.
func (c *Conn) ReadSet(f ruleset.Family, name string) (*ruleset.Set, error) {
	found, err := c.nft.GetSetByName(&nftables.Table{Family: family(f), Name: c.table}, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find set %s: %w", name, err)
	}
	return c.readSet(found)
}
