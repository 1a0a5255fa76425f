// Package services speaks to `warden services`, the one unprivileged process
// that answers the DNS queries of all VPCs on this host and outlives the agent.
//
// The agent makes the sockets of 169.254.169.253:53 inside each router namespace
// and hands them over with a zone to answer from:
//
//	c, err := services.Dial(ctx, "/run/gpuhost/services.sock")
//	err = c.SetVPC(ctx, uid, udp, tcp, zone)
//
// After a restart the agent lists what is served, pushes what differs and removes
// what is no more: a VPC that stays set keeps its router namespace alive.
//
// The protocol is a length, JSON and, where there are sockets, SCM_RIGHTS beside
// the length's first byte. Neighbours: services/resolver is the other side,
// isolation/warden/launch starts it.
package services
