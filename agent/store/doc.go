// Package store is the agent's journal: everything that could not be read back
// from the kernel, in one bbolt file, each write fsynced before it returns.
//
// It holds the desired objects by generation, what is remembered of each
// instance's runs, claims (uid ranges, addresses, ports, transit links), the GPU
// ledger, events and changes. Statuses are what was last observed; they live in
// memory only and are observed again after a restart.
//
// Objects handed out are shared and never to be changed; copy before editing.
// Whatever Apply keeps, it has copied.
package store
