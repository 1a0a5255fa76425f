package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Published is where a published port of the host leads to.
type Published struct {
	Protocol uint8      `json:"protocol"`
	Port     uint16     `json:"port"` // the host's
	To       netip.Addr `json:"to"`   // who answers
	// ToPort is the port there; 0 where the host's stays.
	ToPort uint16 `json:"toPort,omitempty"`
}

// Unpublished are the published ports of a table that another one, nil for none,
// does not have or leads elsewhere. Their connections are to be forgotten: what is
// tracked goes on being translated, and a client that never stops sending is served
// by the former owner for ever.
func Unpublished(have *ruleset.State, want *ruleset.Table) []Published {
	old := have.Set(publishMap)
	if old == nil {
		return nil
	}
	var kept []ruleset.Element
	if want != nil {
		if set := want.State().Set(publishMap); set == old {
			return nil
		} else if set != nil {
			kept = set.Elements
		}
	}
	var gone []Published
	for _, e := range old.Elements {
		if !slices.Contains(kept, e) {
			gone = append(gone, publishedOf(e))
		}
	}
	return gone
}

// publishedOf reads an element of a publish map; see publishKey.
func publishedOf(e ruleset.Element) Published {
	key, data := []byte(e.From), []byte(e.Data)
	p := Published{
		Protocol: key[0], Port: binary.BigEndian.Uint16(key[4:6]), To: netip.AddrFrom4([4]byte(data[:4])),
	}
	if len(data) > 4 {
		p.ToPort = binary.BigEndian.Uint16(data[4:6])
	}
	return p
}

// Owed are those of the translated connections there are which no port that is
// published in a table let in: whoever took the port away ended before they were
// forgotten. In the host's own table only what is translated to routers counts;
// others translate there, too.
func Owed(table *ruleset.State, translated []Published) []Published {
	published := table.Set(publishMap)
	if published == nil {
		return nil
	}
	allowed := make(map[Published]bool, len(published.Elements))
	for _, e := range published.Elements {
		allowed[publishedOf(e)] = true
	}
	routers := table.Set(routersSet)
	var owed []Published
	for _, t := range translated {
		if routers != nil {
			t.ToPort = 0
			if !slices.Contains(routers.Elements, ruleset.Element{From: ruleset.Addr(t.To)}) {
				continue
			}
		}
		if !allowed[t] && !slices.Contains(owed, t) {
			owed = append(owed, t)
		}
	}
	return owed
}

// owing says in a plan what is owed; nothing where nothing is.
func owing(owed []Published) []string {
	if len(owed) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("connections to %d ports that are published no longer are to be forgotten", len(owed))}
}
