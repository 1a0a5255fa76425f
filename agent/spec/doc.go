// Package spec holds the resources of the public contract: their types, strict
// decoding, defaults and validation. It is pure: it opens no file and asks no
// kernel, and whatever it accepts is safe to hand on.
//
//	objects, err := spec.Decode("tenants.yaml", text) // line, column, nearest name on error
//
// Neighbours: agent/store keeps these values by generation, the rooms turn them
// into steps, agent/api carries them as JSON.
package spec
