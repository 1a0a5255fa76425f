package spec

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// uidLetters is the alphabet of RFC 4648 in lower case.
const uidLetters = "abcdefghijklmnopqrstuvwxyz234567"

// uidLength gives 40 bits: among 100,000 objects two are alike once in 200
// times, and the store draws again.
const uidLength = 8

// NewUID draws an identity from the system's random source.
func NewUID() UID {
	random := make([]byte, uidLength*5/8)
	rand.Read(random) // never fails: crypto/rand ends the process instead
	return UID(base32.NewEncoding(uidLetters).EncodeToString(random))
}

// Valid says whether u has the form that NewUID gives. Kernel names and paths
// are made of it, so anything else is refused before it gets there.
func (u UID) Valid() bool {
	return len(u) == uidLength && strings.Trim(string(u), uidLetters) == ""
}
