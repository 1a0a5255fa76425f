package spec

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Bytes is a size: "128GiB", "16MiB", "1024". Whole bytes, never negative.
type Bytes int64

// CPU is a share of processors in thousandths of a core: "16", "0.5".
type CPU int64

// BitRate is bits per second: "1Gbit", "200Mbit".
type BitRate int64

// Duration is a time.Duration written "30s".
type Duration time.Duration

// Upper bounds far beyond any host, low enough that sums of a hundred thousand
// of them still fit an int64.
const (
	maxBytes    = 1 << 46             // 64 TiB
	maxCPU      = 100_000 * 1000      // cores, in thousandths
	maxBitRate  = 100_000_000_000_000 // 100 Tbit/s
	maxDuration = 366 * 24 * time.Hour
)

// unit is one suffix and how many base units it stands for.
type unit struct {
	name   string
	factor int64
}

// byteUnits is in printing order: the first that divides a value is its canonical unit.
func byteUnits() []unit {
	return []unit{
		{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}, {"", 1},
	}
}

func bitUnits() []unit {
	return []unit{{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}
}

// ParseBytes reads a size. Binary (KiB) and decimal (kB) units are understood;
// a fraction is fine as long as whole bytes come out.
func ParseBytes(text string) (Bytes, error) {
	n, err := parseQuantity("size", text, byteUnits(), maxBytes, "64TiB")
	return Bytes(n), err
}

// ParseCPU reads a number of cores with up to three decimals.
func ParseCPU(text string) (CPU, error) {
	n, err := parseQuantity("number of CPUs", text, []unit{{"", 1000}}, maxCPU, "100000")
	return CPU(n), err
}

// ParseBitRate reads bits per second. The unit is mandatory: a bare number is
// as often meant in bytes.
func ParseBitRate(text string) (BitRate, error) {
	n, err := parseQuantity("bit rate", text, bitUnits(), maxBitRate, "100Tbit")
	return BitRate(n), err
}

// ParseDuration reads a duration in Go's notation, "1h30m". Never negative.
func ParseDuration(text string) (Duration, error) {
	refuse := func(why string) (Duration, error) {
		return 0, fault.New(fault.Invalid, "duration "+quote(text), "%s", why).WithHint("write it like 30s, 5m or 1h30m")
	}
	d, err := time.ParseDuration(text)
	switch {
	case isDigits(text):
		return refuse("has no unit")
	case err != nil:
		return refuse("is not a duration")
	case d < 0:
		return refuse("is negative")
	case d > maxDuration:
		return refuse("is more than a year")
	}
	return Duration(d), nil
}

// parseQuantity reads digits[.digits]unit exactly, without going through a float.
func parseQuantity(noun, text string, units []unit, limit int64, limitText string) (int64, error) {
	refuse := func(format string, args ...any) (int64, error) {
		return 0, fault.New(fault.Invalid, noun+" "+quote(text), format, args...)
	}
	if strings.HasPrefix(text, "-") {
		return refuse("is negative")
	}
	digits, suffix := splitNumber(text)
	factor, known := factorOf(units, suffix)
	if digits == "" {
		return refuse("does not start with a number")
	}
	if !known {
		return refuse("%s", unitProblem(suffix, units))
	}
	whole, fraction, dotted := strings.Cut(digits, ".")
	if len(whole) > 20 || len(fraction) > 20 {
		return refuse("has too many digits")
	}
	if !isDigits(whole) || dotted && !isDigits(fraction) {
		return refuse("is not a number")
	}
	value, _ := new(big.Int).SetString(whole+fraction, 10)
	value.Mul(value, big.NewInt(factor))
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(len(fraction))), nil)
	value, rest := value.QuoRem(value, scale, new(big.Int))
	if rest.Sign() != 0 {
		return refuse("is finer than the smallest unit")
	}
	if value.Cmp(big.NewInt(limit)) > 0 {
		return refuse("is more than %s", limitText)
	}
	return value.Int64(), nil
}

func unitProblem(suffix string, units []unit) string {
	var names []string
	for _, u := range units {
		if u.name != "" {
			names = append(names, u.name)
		}
	}
	switch {
	case len(names) == 0:
		return "is not a plain number of cores such as 16 or 0.5"
	case suffix == "":
		return "has no unit; write one of " + strings.Join(names, ", ")
	}
	return "has the unknown unit " + quote(suffix) + "; write one of " + strings.Join(names, ", ")
}

func splitNumber(text string) (number, suffix string) {
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		return text, ""
	}
	return text[:end], text[end:]
}

func factorOf(units []unit, name string) (int64, bool) {
	for _, u := range units {
		if u.name == name {
			return u.factor, true
		}
	}
	return 0, false
}

func isDigits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// quote shows input of unknown origin: escaped, and cut where it is long.
func quote(text string) string {
	const longest = 64
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return strconv.Quote(text)
}

// String prints the largest binary unit that divides b: "128GiB", else plain bytes.
func (b Bytes) String() string {
	for _, u := range byteUnits()[:4] {
		if b != 0 && int64(b)%u.factor == 0 {
			return strconv.FormatInt(int64(b)/u.factor, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// About prints b for a person, rounded: "23.5GiB", "512KiB", "17B".
func (b Bytes) About() string {
	value, unit := float64(b), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	return strconv.FormatFloat(math.Round(value*10)/10, 'f', -1, 64) + unit
}

// String prints cores without trailing zeros: "16", "0.5".
func (c CPU) String() string {
	whole := strconv.FormatInt(int64(c)/1000, 10)
	if c%1000 == 0 {
		return whole
	}
	thousandths := strconv.FormatInt(int64(c)%1000+1000, 10)[1:]
	return whole + "." + strings.TrimRight(thousandths, "0")
}

// Cores is c as a number of cores, for rendering and ratios only.
func (c CPU) Cores() float64 { return float64(c) / 1000 }

// String prints the largest unit that divides r: "1Gbit".
func (r BitRate) String() string {
	for _, u := range bitUnits() {
		if r != 0 && int64(r)%u.factor == 0 {
			return strconv.FormatInt(int64(r)/u.factor, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(r), 10) + "bit"
}

// String prints Go's notation without the zero units: "1h" and not "1h0m0s".
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Std is d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// MarshalJSON implements json.Marshaler: a string with its unit.
func (b Bytes) MarshalJSON() ([]byte, error) { return json.Marshal(b.String()) }

// MarshalJSON implements json.Marshaler: a number of cores.
func (c CPU) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// MarshalJSON implements json.Marshaler: a string with its unit.
func (r BitRate) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// MarshalJSON implements json.Marshaler: a string with its unit.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *CPU) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCPU(string(text))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *BitRate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseBitRate(string(text))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// UnmarshalJSON accepts a string or a number.
func (b *Bytes) UnmarshalJSON(data []byte) error { return b.UnmarshalText(unquoteJSON(data)) }

// UnmarshalJSON accepts a string or a number.
func (c *CPU) UnmarshalJSON(data []byte) error { return c.UnmarshalText(unquoteJSON(data)) }

// UnmarshalJSON accepts a string.
func (r *BitRate) UnmarshalJSON(data []byte) error { return r.UnmarshalText(unquoteJSON(data)) }

// UnmarshalJSON accepts a string.
func (d *Duration) UnmarshalJSON(data []byte) error { return d.UnmarshalText(unquoteJSON(data)) }

// unquoteJSON gives the text of a JSON string, and any other value as it is.
func unquoteJSON(data []byte) []byte {
	data = bytes.TrimSpace(data)
	var text string
	if len(data) > 0 && data[0] == '"' && json.Unmarshal(data, &text) == nil {
		return []byte(text)
	}
	return data
}
