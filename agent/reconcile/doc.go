// Package reconcile decides when: it observes, plans, applies and observes
// again, one lane per object, and writes what it did into changes, statuses and
// events.
//
// It knows the rooms only through the ports in ports.go and never touches the
// operating system itself. What a lane wants is built by the pure functions in
// desired.go from the stored objects and claims; what the steps are is decided by
// the rooms' planners.
//
// Lanes:
//
//	instance/<uid>  one instance: GPUs reserved, container made, attached, audited, started; or taken down
//	vpc/<uid>       one VPC: router namespace, rules, guards
//	gpus            hand-over of every GPU whose owner is gone
//	sweep           what carries our mark and is not stored
//	host            what all share: NAT and publish in the host's namespace, DNS tables
package reconcile
