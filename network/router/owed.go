package router

import (
	"github.com/gpuhost/gpuhost/network"
	"github.com/gpuhost/gpuhost/network/flow"
	"github.com/gpuhost/gpuhost/network/ruleset"
)

// owed is which connections must be forgotten because the port that let them in is
// published no longer. Whoever loads rules forgets them right after; a process that
// ends in between leaves them to the next, which compares the connections there are
// with the rules there are, once. So does whoever finds that somebody else wrote.
type owed struct {
	looked     bool
	generation uint32 // of the rules that the connections were compared with
	found      []network.Published
}

// unknown has them looked for at the next look: some are about to be forgotten.
func (o *owed) unknown(gone []network.Published) {
	if len(gone) > 0 {
		o.looked = false
	}
}

// paid notes that all were forgotten, after a load that left the kernel at a
// generation. Only a load without another's in between brings it forward.
func (o *owed) paid(before, generation uint32) {
	if generation == before+1 || generation == before {
		*o = owed{looked: true, generation: generation}
	}
}

// look finds them, where that is not known.
func (o *owed) look(conn *flow.Conn, table *ruleset.State, generation uint32) ([]network.Published, error) {
	if table == nil {
		return nil, nil // without rules it is known once they are loaded
	}
	if o.looked && o.generation == generation {
		return o.found, nil
	}
	translations, err := conn.Translations()
	if err != nil {
		return nil, err
	}
	all := make([]network.Published, len(translations))
	for i, t := range translations {
		all[i] = network.Published{Protocol: t.Protocol, Port: t.Port, To: t.To.Addr(), ToPort: t.To.Port()}
	}
	*o = owed{looked: true, generation: generation, found: network.Owed(table, all)}
	return o.found, nil
}
