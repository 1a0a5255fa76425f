package network

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"

	"github.com/gpuhost/gpuhost/agent/spec"
)

// UplinkName is the router's end of the transit link, in every router namespace.
const UplinkName = "up0"

// InstanceLinkName is the instance's only interface, in its own namespace.
const InstanceLinkName = "eth0"

// Gateway is every instance's gateway. No namespace holds the address: the
// instance has a permanent neighbour for it, so nobody needs to answer ARP.
func Gateway() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 1, 1}) }

// ServiceAddress is where the VPC's resolver listens, in the router namespace.
func ServiceAddress() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 169, 253}) }

// RouterMAC is the router's address on every instance's link.
func RouterMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0x67, 0x77, 0, 0, 1} }

// InstanceMAC is an instance's address: locally administered, derived from the
// uid so that it is the same after every restart.
func InstanceMAC(uid spec.UID) net.HardwareAddr {
	sum := sha256.Sum256([]byte(uid))
	return append(net.HardwareAddr{0x02}, sum[:5]...)
}

// LinkName is the router's end of an instance's link.
func LinkName(instance spec.UID) string { return linkPrefix + string(instance) }

// TransitName is the host's end of a VPC's transit link.
func TransitName(vpc spec.UID) string { return transitPrefix + string(vpc) }

// IsTransit says whether a device of the host is the end of a transit link.
func IsTransit(device string) bool { return strings.HasPrefix(device, transitPrefix) }

// TableName is the name of every table this host's agent makes.
func TableName(hostID string) string { return tablePrefix + hostID }

const (
	tablePrefix   = "gpuhost_"
	linkPrefix    = "i-"
	transitPrefix = "gt-"
	maxIfname     = 15
)

// GuardName is the chain that guards an instance's link.
func GuardName(instance spec.UID) string { return "guard_" + string(instance) }

// InstanceOf finds whose link a name in a router namespace is.
func InstanceOf(link string) (spec.UID, bool) {
	uid, ok := strings.CutPrefix(link, linkPrefix)
	return spec.UID(uid), ok
}

func counterName(instance spec.UID, class Class, direction Direction) string {
	return "c_" + string(instance) + "_" + string(class) + "_" + string(direction)
}

// shortHash names a list of groups or a text in 16 hex digits.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// longHash is for what nobody has to read.
func longHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
