package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// setting is one line of the table: its key, what it means, and the field it
// stands for.
type setting struct {
	key   string
	doc   string
	value value
}

// section is the table of the file that the key lies in.
func (s setting) section() string { return s.key[:strings.IndexByte(s.key, '.')] }

// name is the key within its section.
func (s setting) name() string { return s.key[strings.IndexByte(s.key, '.')+1:] }

// variable is the name in the environment.
func (s setting) variable() string {
	return "GPUHOST_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// table binds every setting to a field of c, in the order of the default file.
func table(c *Config) []setting {
	return []setting{
		{"metrics.listen", "Address that Prometheus scrapes, host:port. Empty turns it off.",
			text(&c.Metrics.Listen, address)},

		{"telemetry.dcgm", "Serve the DCGM exporter's names too, for dashboards made for it.", boolean(&c.Telemetry.DCGM)},
		{"telemetry.hostname_label", "Their label with the host's name. The exporter wrote Hostname before May 2026, and hostname since.",
			choice(&c.Telemetry.HostnameLabel, "hostname", "Hostname")},

		{"log.level", "debug, info, warn or error.", choice(&c.Log.Level, "debug", "info", "warn", "error")},
		{"log.format", "text or json.", choice(&c.Log.Format, "text", "json")},

		{"runtime.dir", "Folder with containerd, its shim and runc, as the package gpuhost-runtime installs them.",
			text(&c.Runtime.Dir, absolute)},
		{"runtime.address", "Socket of a gpuhost-runtime that another unit keeps running. Empty: the agent starts its own.",
			text(&c.Runtime.Address, absoluteOrEmpty)},
		{"runtime.cgroup", "Cgroup that a unit keeps for the tenants, below the mount of cgroup v2. Empty: the agent makes its own.",
			text(&c.Runtime.Cgroup, absoluteOrEmpty)},

		{"programs.nvml_helper", "The process that talks to the NVIDIA driver.", text(&c.Programs.NVMLHelper, absolute)},
		{"programs.warden", "The small process that outlives the agent beside every task.", text(&c.Programs.Warden, absolute)},

		{"uids.pool_start", "First of the host's user ids that tenants' containers run under; a multiple of 65536.\n" +
			"Nothing else on the host, /etc/subuid included, may use ids of the pool.",
			number(&c.UIDs.PoolStart, 65_536, 1<<32-65_536)},
		{"uids.pool_size", "How many ids the pool has. Each tenant gets 65536.", number(&c.UIDs.PoolSize, 65_536, 1<<32-65_536)},
		{"uids.wardens", "The user and group id of the log writers and the resolver. Nobody else may have it, no tenant and no account.",
			number(&c.UIDs.Wardens, 1, 1<<32-2)},

		{"network.protected", "Networks of yours (underlay, management) that no tenant may open connections to.",
			list(&c.Network.Protected, prefix, netip.Prefix.String)},
		{"network.uplink", "The one interface that tenants' traffic may leave the host by. Empty: those of the host's default routes, any where it has none; any: any.", text(&c.Network.Uplink, interfaceName)},
		{"network.transit_pool", "Addresses of the links between the host and its VPCs, two for each VPC.\n" +
			"They come from RFC 6598 (100.64.0.0/10), which neither private nor public networks use, and from the end\n" +
			"of it, because carriers and overlay networks hand it out from the beginning.",
			scalar(&c.Network.TransitPool, transitPool, netip.Prefix.String)},
		{"network.publish_ports", "Ports of the host that tenants may publish on. Whoever may use the socket for everything is not bound to them.",
			list(&c.Network.Publish, portRange, spec.PortRange.String)},
		{"network.upstream_dns", "Resolvers that tenants' queries are passed on to. Empty: those of the host's /etc/resolv.conf.",
			list(&c.Network.UpstreamDNS, netip.ParseAddr, netip.Addr.String)},
		{"network.mtu", "MTU of tenants' interfaces. 0: 100 less than that of the host's default route, which leaves room for encapsulation: 1400 on a network of 1500.", mtu(&c.Network.MTU)},

		{"audit.interval", "How often the isolation of every running instance is read back from the kernel, 5s to 1h. Each instance has\n" +
			"its own moment in the interval; after a restart of the agent all are read at once.",
			scalar(&c.Audit.Interval, interval, duration)},
		{"audit.policy", "What follows when a control is missing: fence (close the instance off) or report.",
			choice(&c.Audit.Policy, PolicyFence, PolicyReport)},

		{"api.group", "Local group that may use the socket for everything.", text(&c.API.Group, groupName)},
		{"api.view_group", "Local group that may read.", text(&c.API.ViewGroup, groupName)},

		{"tenants.uids", "Local users and the tenant each one acts for: {\"1000\" = \"acme\"}.", pairs(&c.Tenants.UIDs, userOfTenant)},

		{"instances.cpus", "CPUs of an instance that names none and holds no GPU. With GPUs it gets their share of the host.",
			scalar(&c.Instances.CPUs, positive(spec.ParseCPU), spec.CPU.String)},
		{"instances.memory", "Its memory.", scalar(&c.Instances.Memory, positive(spec.ParseBytes), spec.Bytes.String)},
		{"instances.pids", "How many processes and threads it may have.", number(&c.Instances.Pids, 1, 4<<20)},
		{"instances.shm", "Size of its /dev/shm, charged to its memory.", scalar(&c.Instances.Shm, positive(spec.ParseBytes), spec.Bytes.String)},

		{"images.disk_high", "Unused images are removed when the disk is fuller than this, in percent,", number(&c.Images.DiskHigh, 1, 100)},
		{"images.disk_low", "until it is this full.", number(&c.Images.DiskLow, 0, 99)},
		{"images.local_registries", "Registries (or proxies) on this host or its link that pulls may connect to, like 127.0.0.1:5000. Tenants name what\n" +
			"is pulled, so no other loopback, link-local or multicast address is ever connected to.",
			list(&c.Images.LocalRegistries, netip.ParseAddrPort, netip.AddrPort.String)},
	}
}

// overflowID is whom the kernel shows for a user that a namespace does not map.
const overflowID = 65_534

// check looks at what single settings cannot tell. The error names the key.
func (c *Config) check() (key string, err error) {
	const size = 65_536
	u := c.UIDs
	switch {
	case u.PoolStart%size != 0:
		return "uids.pool_start", fmt.Errorf("%d is no multiple of %d", u.PoolStart, size)
	case u.PoolSize%size != 0:
		return "uids.pool_size", fmt.Errorf("%d is no multiple of %d", u.PoolSize, size)
	case u.Wardens == overflowID:
		return "uids.wardens", fmt.Errorf("%d stands for every user without a place in a namespace", u.Wardens)
	case u.Wardens >= u.PoolStart && u.Wardens-u.PoolStart < u.PoolSize:
		return "uids.wardens", fmt.Errorf("%d lies in the tenants' pool", u.Wardens)
	case uint64(u.PoolStart)+uint64(u.PoolSize) > 1<<32-size:
		return "uids.pool_size", errors.New("the pool ends beyond the last user id")
	case c.Images.DiskLow >= c.Images.DiskHigh:
		return "images.disk_low", fmt.Errorf("%d is not below images.disk_high, %d", c.Images.DiskLow, c.Images.DiskHigh)
	case c.Instances.Shm > c.Instances.Memory:
		return "instances.shm", fmt.Errorf("%s is more than instances.memory, %s", c.Instances.Shm, c.Instances.Memory)
	}
	return "", nil
}

func address(s string) error {
	if s == "" {
		return nil
	}
	if _, err := netip.ParseAddrPort(s); err != nil {
		return errors.New("is no address:port like 127.0.0.1:9877")
	}
	return nil
}

func absolute(s string) error {
	if !path.IsAbs(s) || path.Clean(s) != s {
		return errors.New("is no clean absolute path")
	}
	return nil
}

func absoluteOrEmpty(s string) error {
	if s == "" {
		return nil
	}
	return absolute(s)
}

func interfaceName(s string) error {
	const longest = 15 // IFNAMSIZ less the end mark
	if len(s) > longest || strings.ContainsAny(s, "/: \t\n\x00") || s == "." || s == ".." {
		return errors.New("is no name of a network interface")
	}
	return nil
}

func groupName(s string) error {
	if s == "" || len(s) > 32 || strings.ContainsAny(s, ":/, \t\n\x00") {
		return errors.New("is no name of a group")
	}
	return nil
}

func prefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("is no network like 10.0.0.0/8")
	}
	if p != p.Masked() {
		return p, fmt.Errorf("has bits beyond its prefix length; the network is %s", p.Masked())
	}
	return p, nil
}

func portRange(s string) (spec.PortRange, error) {
	ranges, err := spec.ParsePorts(s)
	if err != nil || len(ranges) != 1 {
		return spec.PortRange{}, errors.New("is no port or range like 1024-65535")
	}
	return ranges[0], nil
}

func transitPool(s string) (netip.Prefix, error) {
	p, err := prefix(s)
	if err == nil && (!p.Addr().Is4() || p.Bits() > 24 || p.Bits() < 8) {
		return p, errors.New("is no IPv4 network of /8 to /24")
	}
	return p, err
}

func interval(s string) (time.Duration, error) {
	d, err := spec.ParseDuration(s)
	if err == nil && (d.Std() < 5*time.Second || d.Std() > time.Hour) {
		return 0, errors.New("is not between 5s and 1h")
	}
	return d.Std(), err
}

func duration(d time.Duration) string { return spec.Duration(d).String() }

func positive[T ~int64](parse func(string) (T, error)) func(string) (T, error) {
	return func(s string) (T, error) {
		v, err := parse(s)
		if err == nil && v == 0 {
			return v, errors.New("is zero")
		}
		return v, err
	}
}

// mtu accepts 0 and what IPv4 and an Ethernet of today can carry.
func mtu(p *int) value {
	v := number(p, 0, 65_535)
	inner := v.parse
	v.parse = func(s string) (int, error) {
		n, err := inner(s)
		if err == nil && n != 0 && n < 576 {
			return n, errors.New("is below 576, the least that IPv4 must carry")
		}
		return n, err
	}
	return v
}

func userOfTenant(uid, tenant string) error {
	o := &spec.Object{Kind: spec.KindTenant, Metadata: spec.Metadata{Name: tenant}, Spec: &spec.TenantSpec{}}
	var n uint32
	if _, err := fmt.Sscanf(uid, "%d", &n); err != nil || fmt.Sprint(n) != uid {
		return fmt.Errorf("%q is no user id", uid)
	}
	return spec.Validate(o)
}

func keys(c *Config) []string {
	var all []string
	for _, s := range table(c) {
		all = append(all, s.key)
	}
	return all
}

func find(settings []setting, key string) (setting, bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}
