package network

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/gpuhost/gpuhost/network/ruleset"
)

// Published is where a published port of the host leads to.
type Published struct {
	Protocol uint8
	Port     uint16     // the host's
	To       netip.Addr // who answers
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
	return Published{
		Protocol: key[0], Port: binary.BigEndian.Uint16(key[4:6]), To: netip.AddrFrom4([4]byte(data[:4])),
	}
}
