package spec

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/fault"
)

// Bounds of single fields: above every host that exists, low enough that a
// slip of the finger is noticed.
const (
	minMemory     = 8 << 20 // runc itself needs about this much to start a process
	minCPU        = 10      // thousandths; the kernel's smallest quota is 1 ms in 100 ms
	maxPids       = 4 << 20 // PID_MAX_LIMIT
	maxGPUs       = 128
	maxCount      = 1_000_000
	maxGroups     = 16
	maxPublish    = 1024
	maxEntries    = 5000 // of one direction of a group; what groups bound together may come to, network/policy says
	maxStopGrace  = Duration(time.Hour)
	maxUserID     = 65_535 // of the tenant's range
	maxOvercommit = 100
)

func (c *checker) host(s *HostSpec) {
	if s.Overcommit.CPU != 0 && (s.Overcommit.CPU < 1 || s.Overcommit.CPU > maxOvercommit) {
		c.invalid("spec.overcommit.cpu", "%v is not between 1 and %d", s.Overcommit.CPU, maxOvercommit)
	}
	c.oneOf("spec.handover.withoutReset", s.Handover.WithoutReset, HandoverQuarantine, HandoverAllow)
}

func (c *checker) tenant(s *TenantSpec) {
	c.count("spec.quota.instances", s.Quota.Instances)
	c.count("spec.quota.gpus", s.Quota.GPUs)
}

func (c *checker) count(path string, n *int) {
	if n != nil {
		c.between(path, int64(*n), 0, maxCount)
	}
}

func (c *checker) secret(s *SecretSpec) {
	for _, key := range sortedKeys(s.Data) {
		if !isSecretKey(key) {
			c.invalid("spec.data", "the key %s is not made of letters, digits, - _ and .", quote(key))
		}
	}
}

func isSecretKey(text string) bool {
	return isLabelText(text) && text != "" && !strings.Contains(text, "/")
}

func (c *checker) instance(s *InstanceSpec) {
	if s.Image == "" {
		c.invalid("spec.image", "is missing")
	} else {
		_, err := ParseImage(s.Image)
		c.fault("spec.image", err)
	}
	c.oneOf("spec.pullPolicy", s.PullPolicy, PullMissing, PullAlways, PullNever)
	c.optionalLabel("spec.pullSecret", s.PullSecret)
	c.process(s)
	c.oneOf("spec.state", s.State, StateRunning, StateStopped)
	c.oneOf("spec.restart", s.Restart, RestartOnFailure, RestartAlways, RestartNever)
	c.oneOf("spec.isolation", s.Isolation, TierContainer, TierSandbox, TierVM)
	c.resources(s.Resources)
	if s.StopGrace < 0 || s.StopGrace > maxStopGrace {
		c.invalid("spec.stopGrace", "%s is more than %s", s.StopGrace, maxStopGrace)
	}
	c.between("spec.gpus.count", int64(s.GPUs.Count), 0, maxGPUs)
	c.instanceNetwork(s.Network)
	c.publish(s.Publish)
	if _, err := time.Parse(time.RFC3339Nano, s.RestartedAt); s.RestartedAt != "" && err != nil {
		c.invalid("spec.restartedAt", "%s is not a time like 2006-01-02T15:04:05Z", quote(s.RestartedAt))
	}
}

var (
	envSyntax  = compiled(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	userSyntax = compiled(`^(\d{1,5})(?::(\d{1,5}))?$`)
)

// process checks what the container will execute, as whom and with what environment.
func (c *checker) process(s *InstanceSpec) {
	if len(s.Command) > 0 && s.Command[0] == "" {
		c.invalid("spec.command[0]", "is empty")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Env)) {
		c.env("spec.env", name, s.Env[name])
	}
	if s.User == "" {
		return
	}
	match := userSyntax().FindStringSubmatch(s.User)
	if match == nil || !isUserID(match[1]) || match[2] != "" && !isUserID(match[2]) {
		c.invalid("spec.user", "%s is not a number, or two with a colon, from 0 to %d", quote(s.User), maxUserID)
	}
}

func isUserID(text string) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n <= maxUserID
}

func (c *checker) env(path, name string, value EnvValue) {
	switch {
	case !envSyntax().MatchString(name):
		c.invalid(path, "%s is not the name of a variable", quote(name))
	case name == "NVIDIA_VISIBLE_DEVICES":
		c.invalid(join(path, name), "GPUs are given by spec.gpus alone")
	case value.Secret == "":
		return
	}
	secret, key := value.SecretKey()
	if labelProblem(secret) != "" || !isSecretKey(key) {
		c.invalid(join(path, name), "%s is not a secret's name/key", quote(value.Secret))
	}
}

func (c *checker) resources(r ResourcesSpec) {
	if r.CPUs != 0 && r.CPUs < minCPU {
		c.invalid("spec.resources.cpus", "%s is less than %s", r.CPUs, CPU(minCPU))
	}
	if r.Memory != 0 && r.Memory < minMemory {
		c.invalid("spec.resources.memory", "%s is less than %s", r.Memory, Bytes(minMemory))
	}
	c.between("spec.resources.pids", r.Pids, 0, maxPids)
	if r.Memory != 0 && r.Shm > r.Memory {
		c.invalid("spec.resources.shm", "%s is more than the memory of %s, which it is charged to", r.Shm, r.Memory)
	}
}

func (c *checker) instanceNetwork(n InstanceNetwork) {
	c.optionalLabel("spec.network.subnet", n.Subnet)
	if len(n.SecurityGroups) > maxGroups {
		c.invalid("spec.network.securityGroups", "there are %d, at most %d can be bound", len(n.SecurityGroups), maxGroups)
	}
	for i, group := range n.SecurityGroups {
		path := indexed("spec.network.securityGroups", i)
		c.label(path, group)
		if slices.Contains(n.SecurityGroups[:i], group) {
			c.invalid(path, "%s is there twice", quote(group))
		}
	}
	if n.Address == "" {
		return
	}
	address, err := netip.ParseAddr(n.Address)
	switch {
	case err != nil || address.Zone() != "":
		c.invalid("spec.network.address", "%s is not an address", quote(n.Address))
	case !address.Is4():
		c.unsupported("spec.network.address", "IPv6 is not built yet")
	}
}

func (c *checker) publish(list []Publish) {
	if len(list) > maxPublish {
		c.invalid("spec.publish", "there are %d, at most %d", len(list), maxPublish)
		return
	}
	seen := make(map[Publish]bool, len(list))
	for i, p := range list {
		host := Publish{HostPort: p.HostPort, Protocol: p.Protocol}
		if p.HostPort == 0 || p.Port == 0 {
			c.invalid(indexed("spec.publish", i), "a port is a number from 1 to 65535")
		}
		if seen[host] {
			c.invalid(indexed("spec.publish", i), "the host's port %d/%s is there twice", p.HostPort, p.Protocol)
		}
		seen[host] = true
	}
}

// cidr accepts the IPv4 networks a VPC can have. Which of them collide with
// the operator's own is the host's business.
func (c *checker) cidr(path, text string) {
	if text == "" {
		c.invalid(path, "is missing")
		return
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		c.invalid(path, "%s is not a network like 10.0.0.0/16", quote(text))
	case !prefix.Addr().Is4():
		c.unsupported(path, "IPv6 is not built yet")
	case prefix != prefix.Masked():
		c.invalid(path, "%s has bits beyond its prefix length; the network is %s", quote(text), prefix.Masked())
	case prefix.Bits() < 8 || prefix.Bits() > 30:
		c.invalid(path, "%s: the prefix length is not between 8 and 30", quote(text))
	}
	for _, taken := range unusable() {
		if prefix.IsValid() && prefix.Overlaps(taken) {
			c.invalid(path, "%s overlaps %s, which no instance can have", quote(text), taken)
		}
	}
}

// unusable are the networks with a meaning of their own in every namespace.
func unusable() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	}
}

func (c *checker) rules(path string, rules []Rule) {
	entries := 0
	for i, r := range rules {
		if c.first != nil {
			return
		}
		if entries += 1 + strings.Count(r.Ports, ","); entries > maxEntries {
			c.invalid(path, "there are more than %d entries, each port or range of a rule counted as one", maxEntries)
			return
		}
		c.rule(indexed(path, i), r)
	}
}

func (c *checker) rule(path string, r Rule) {
	c.required(join(path, "action"), r.Action, ActionAccept, ActionDrop)
	c.required(join(path, "protocol"), r.Protocol,
		ProtocolTCP, ProtocolUDP, ProtocolICMP, ProtocolICMPv6, ProtocolGRE, ProtocolAll)
	if r.Protocol == ProtocolICMPv6 {
		c.unsupported(join(path, "protocol"), "IPv6 is not built yet")
	}
	_, err := ParsePorts(r.Ports)
	c.fault(join(path, "ports"), err)
	if r.Ports != "" && r.Protocol != ProtocolTCP && r.Protocol != ProtocolUDP {
		c.invalid(join(path, "ports"), "%s has no ports", r.Protocol)
	}
	if r.Source != "" {
		c.invalid(join(path, "sourcePorts"), "only network ACLs match these; security groups are stateful")
	}
	if r.Remote == "" {
		c.report(problem{fault.Invalid, join(path, "remote"), "is missing", "write any for every address"})
	}
	_, err = ParseRemote(r.Remote)
	c.fault(join(path, "remote"), err)
}

func (c *checker) required(path, value string, known ...string) {
	if value == "" {
		c.invalid(path, "is missing; one of %s", strings.Join(known, ", "))
	}
	c.oneOf(path, value, known...)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
