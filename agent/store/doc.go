// Package store is the agent's journal: everything that could not be read back
// from the kernel, in one bbolt file. It holds the desired objects by
// generation, what is remembered of each instance's runs, claims (uid ranges,
// addresses, transit links), the GPU ledger, events and changes.
//
//	s, err := store.Open(path, store.Options{Now: time.Now, BootID: boot, Key: key})
//	applied, err := s.Apply(ctx, spec.SourceFile, objects, store.ApplyOptions{Check: spec.ValidateSet})
//
// A write is on disk when it returns; only events and changes may wait for the
// next write, a second at most. Reads come from memory and never wait for the
// disk. Statuses are what was last observed; they live in memory only.
//
// Objects handed out are shared and never to be changed; copy before editing.
// Whatever Apply keeps, it has copied.
//
// It decides nothing: which object is valid says agent/spec, which transition of
// a GPU is allowed says drivers.
package store
