package config

// Reload is c with what may change while the agent runs taken from next, and the
// keys of what differs and waits for a restart.
func (c *Config) Reload(next *Config) (inForce *Config, waiting []string) {
	merged := *c
	merged.Log.Level = next.Log.Level
	merged.Audit = next.Audit
	merged.Images.DiskHigh, merged.Images.DiskLow = next.Images.DiskHigh, next.Images.DiskLow
	merged.origins = make(map[string]string, len(next.origins))
	wanted := table(next)
	for i, s := range table(&merged) {
		from := next.origins
		if s.value.String() != wanted[i].value.String() {
			waiting, from = append(waiting, s.key), c.origins
		}
		if origin, set := from[s.key]; set {
			merged.origins[s.key] = origin
		}
	}
	return &merged, waiting
}
