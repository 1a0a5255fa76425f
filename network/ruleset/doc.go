// Package ruleset is a neutral description of nftables: tables, chains, rules of
// typed expressions, sets, maps and counters. It renders to text for people and
// golden files, and finds the smallest change from what the kernel holds to what
// it should hold. It is pure; network/nft speaks it to the kernel.
//
//	changes := ruleset.Diff(kernel, table)
//
// What a diff never does is delete and re-add a base chain that stays: the kernel
// swaps rules atomically, hooks it does not, and packets pass unfiltered or are
// lost between. A chain that differs is flushed and filled again in the same
// transaction; sets change by element.
package ruleset
