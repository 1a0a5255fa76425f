package gpu

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// The forms are anchored and short: both are made into paths and file names.
var (
	uuidForm = compiled(`^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	pciForm  = compiled(`^(?:([0-9a-f]{4}|[0-9a-f]{8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$`)
)

// compiled defers an expression to its first use: the command line starts often
// and mostly parses none.
func compiled(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// ParseUUID accepts the UUID of a whole GPU, in any case, and gives the form
// NVML writes: "GPU-" and lower-case hexadecimal.
func ParseUUID(text string) (UUID, error) {
	rest, found := cutPrefixFold(text, "GPU-")
	id := "GPU-" + strings.ToLower(rest)
	if !found || !uuidForm().MatchString(id) {
		return "", fmt.Errorf("%q is no GPU UUID: want GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", text)
	}
	return UUID(id), nil
}

func cutPrefixFold(text, prefix string) (rest string, found bool) {
	if len(text) < len(prefix) || !strings.EqualFold(text[:len(prefix)], prefix) {
		return text, false
	}
	return text[len(prefix):], true
}

// ParsePCIAddress accepts "1b:00.0", "0000:1B:00.0" and NVML's form with a domain of
// eight digits, and gives "0000:1b:00.0". A domain above ffff does not occur
// on the buses GPUs sit on and is refused.
func ParsePCIAddress(text string) (PCIAddress, error) {
	parts := pciForm().FindStringSubmatch(strings.ToLower(text))
	if parts == nil {
		return "", fmt.Errorf("%q is no PCI address: want 0000:1b:00.0", text)
	}
	domain, err := strconv.ParseUint("0"+parts[1], 16, 64)
	if err != nil || domain > 0xffff {
		return "", fmt.Errorf("%q is no PCI address: its domain is above ffff", text)
	}
	if device, _ := strconv.ParseUint(parts[3], 16, 8); device > 0x1f {
		return "", fmt.Errorf("%q is no PCI address: its device is above 1f", text)
	}
	return PCIAddress(fmt.Sprintf("%04x:%s:%s.%s", domain, parts[2], parts[3], parts[4])), nil
}
