// Package config holds the agent's own settings. They are strict TOML, layered:
//
//	defaults < /usr/lib/gpuhost/gpuhost.toml.d < /run/… < /etc/gpuhost/gpuhost.toml.d
//	         < /etc/gpuhost/gpuhost.toml < GPUHOST_* < flags
//
// and the origin of each value is kept. What exists, what it means and what it
// is without being set is one table ([Config.Settings]); the commented default
// file, the environment's names and the errors are made from it.
//
//	c, err := config.Load(config.Options{Environ: os.Environ()})
//
// Desired state of tenants is no setting: that is agent/spec.
package config
