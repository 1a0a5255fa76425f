package fault

import (
	"strings"
	"unicode"
)

// Printable makes a text that somebody else chose, a process's name or a line of a
// log, fit to stand in a message: what would steer a terminal, or the reader's eye,
// becomes a question mark.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
