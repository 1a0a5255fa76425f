package spec

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// ParsePublish reads "HOST:PORT" or "HOST:PORT/tcp|udp"; tcp when not given.
func ParsePublish(text string) (Publish, error) {
	refuse := func(format string, args ...any) (Publish, error) {
		return Publish{}, fault.New(fault.Invalid, "published port "+quote(text), format, args...).
			WithHint(`write HOSTPORT:PORT/PROTOCOL, for example "2222:22/tcp"`)
	}
	ports, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	host, port, both := strings.Cut(ports, ":")
	if !both {
		return refuse("has no colon between the host's port and the instance's")
	}
	if protocol != "tcp" && protocol != "udp" {
		return refuse("protocol %s is not tcp or udp", quote(protocol))
	}
	hostPort, hostOK := parsePort(host)
	instancePort, instanceOK := parsePort(port)
	if !hostOK || !instanceOK {
		return refuse("a port is a number from 1 to 65535")
	}
	return Publish{HostPort: hostPort, Port: instancePort, Protocol: protocol}, nil
}

// parsePort accepts 1 to 65535 in plain decimal without leading zeros or signs.
func parsePort(text string) (uint16, bool) {
	if !isDigits(text) || text[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil
}

// String prints the form that ParsePublish reads.
func (p Publish) String() string {
	return strconv.Itoa(int(p.HostPort)) + ":" + strconv.Itoa(int(p.Port)) + "/" + p.Protocol
}

// MarshalText implements encoding.TextMarshaler.
func (p Publish) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Publish) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePublish(string(text))
	return err
}

// secretRef is the mapping form of an EnvValue.
type secretRef struct {
	Secret string `json:"secret"`
}

// MarshalJSON writes a literal as a string and a reference as {"secret": "name/key"}.
func (e EnvValue) MarshalJSON() ([]byte, error) {
	if e.Secret != "" {
		return json.Marshal(secretRef{e.Secret})
	}
	return json.Marshal(e.Value)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *EnvValue) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var ref secretRef
		if err := json.Unmarshal(data, &ref); err != nil {
			return err
		}
		*e = EnvValue{Secret: ref.Secret}
		return nil
	}
	*e = EnvValue{}
	return json.Unmarshal(data, &e.Value)
}

// SecretKey splits the reference "name/key" of a value that comes from a secret.
// Both are empty for a literal.
func (e EnvValue) SecretKey() (name, key string) {
	name, key, _ = strings.Cut(e.Secret, "/")
	return name, key
}
