// Package resolver is `warden services`: DNS for every VPC of this host, in one
// process without privilege.
//
// It reads sockets that the agent made in router namespaces and asks the host's
// resolvers from the host's namespace. Names of a VPC's instances it answers
// itself; what is private (instances of others, reverse zones of private
// addresses, names that never leave a host) it denies; the rest it forwards,
// within bounds for each VPC, and passes on cleaned.
//
//	socket ─▶ read ─▶ decide ─┬─▶ zone: answer at once
//	                          ├─▶ denied: NXDOMAIN, REFUSED
//	                          └─▶ cache ─▶ limits ─▶ upstream ─▶ clean ─▶ cache
//
// Nothing is shared between VPCs, the cache included: how fast an answer comes
// says nothing about what a neighbour asks.
package resolver
