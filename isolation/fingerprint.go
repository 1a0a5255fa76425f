package isolation

// Fingerprint stands for the parts of a lease that a container is made from,
// each with a short hash of its value, so that a difference can be named.
type Fingerprint map[string]string
