package gpu

import (
	"fmt"
	"strconv"
	"strings"
)

// MIGProfile is the size of a slice: "3g.40gb", "1c.3g.40gb", "1g.10gb+me".
// Whether a given GPU offers it is a question to that GPU.
type MIGProfile struct {
	Compute   int      // compute slices when fewer than the GPU slices, else 0: the 1 of "1c.3g.40gb"
	Slices    int      // GPU slices: the 3 of "3g.40gb"
	MemoryGB  int      // the 40 of "3g.40gb"
	Modifiers []string // "me", "me.all", "-me", "gfx": as written, without "+"
}

// maxSlices is how many GPU slices the largest MIG capable GPU has.
const maxSlices = 7

var migForm = compiled(`^(?:([1-9])c\.)?([1-9])g\.([1-9][0-9]{0,3})gb((?:\+[a-z.]{2,6}|-me)*)$`)

// ParseMIGProfile reads a profile as written in a specification.
func ParseMIGProfile(text string) (MIGProfile, error) {
	parts := migForm().FindStringSubmatch(strings.ToLower(text))
	if parts == nil {
		return MIGProfile{}, fmt.Errorf("%q is no MIG profile: want for example 3g.40gb", text)
	}
	p := MIGProfile{Compute: number(parts[1]), Slices: number(parts[2]), MemoryGB: number(parts[3])}
	if p.Slices > maxSlices {
		return MIGProfile{}, fmt.Errorf("%q is no MIG profile: a GPU has at most %d slices", text, maxSlices)
	}
	if p.Compute > p.Slices {
		return MIGProfile{}, fmt.Errorf("%q is no MIG profile: more compute slices than GPU slices", text)
	}
	if p.Compute == p.Slices {
		p.Compute = 0
	}
	var err error
	p.Modifiers, err = modifiers(parts[4])
	return p, err
}

func modifiers(text string) ([]string, error) {
	var all []string
	for word := range strings.FieldsFuncSeq(strings.ReplaceAll(text, "-me", "+-me"), func(r rune) bool { return r == '+' }) {
		switch word {
		case "me", "me.all", "-me", "gfx":
			all = append(all, word)
		default:
			return nil, fmt.Errorf("%q is no attribute of a MIG profile: there are me, me.all, -me and gfx", word)
		}
	}
	return all, nil
}

// number reads digits the form has bounded already; "" is 0.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}

// String gives the profile in NVML's notation.
func (p MIGProfile) String() string {
	var text strings.Builder
	if p.Compute != 0 {
		fmt.Fprintf(&text, "%dc.", p.Compute)
	}
	fmt.Fprintf(&text, "%dg.%dgb", p.Slices, p.MemoryGB)
	for _, m := range p.Modifiers {
		if m != "-me" {
			text.WriteByte('+')
		}
		text.WriteString(m)
	}
	return text.String()
}
