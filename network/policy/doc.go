// Package policy gives meaning to the rules of security groups: it parses them,
// compiles an ordered list into lookups, and holds the naive evaluator that the
// compiled form must equal. It is pure.
//
//	rules, err := policy.Parse(group.Ingress)
//	program, err := policy.Compile(rules) // disjoint boxes and group lookups, in order
//
// A kernel set cannot hold "first match decides" for overlapping networks and
// ports, so an ordered list becomes boxes that do not overlap. A rule that names
// a group stays a lookup in that group's own set: its cost is then the same
// whatever the group's size, and a new member is one element. Where such a rule
// stands between others, the program is cut into segments at that place, so that
// order is kept.
//
// Neighbours: package network turns a [Program] into sets and chains.
package policy
