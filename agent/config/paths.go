package config

import (
	"crypto/sha256"
	"encoding/base32"
	"path/filepath"
	"strings"
)

// Paths are where one agent keeps its things. All lie below the root, except the
// sockets of a root whose name is too long for a socket's path.
type Paths struct {
	Etc string // settings, spec.d
	Lib string // state that outlives a reboot
	Run string // state that does not

	Sockets string // short: a socket's path fits 108 bytes, a shim folder's 42
}

// socketDirLimit is what containerd's shims leave for their folder.
const socketDirLimit = 42

// PathsBelow derives the paths from --root; "" is the real host.
func PathsBelow(root string) Paths {
	if root == "" {
		return Paths{Etc: "/etc/gpuhost", Lib: "/var/lib/gpuhost", Run: "/run/gpuhost", Sockets: "/run/gpuhost"}
	}
	p := Paths{
		Etc: filepath.Join(root, "etc"),
		Lib: filepath.Join(root, "var/lib"),
		Run: filepath.Join(root, "run"),
	}
	p.Sockets = p.Run
	if len(p.Sockets)+len("/shim") > socketDirLimit {
		p.Sockets = "/run/gpuhost-" + HostID(root)
	}
	return p
}

// HostID is part of every mark an agent leaves in the kernel, so that agents with
// different roots never touch each other's objects. Six lower-case letters and
// digits; "main" for the real host.
func HostID(root string) string {
	if root == "" {
		return "main"
	}
	sum := sha256.Sum256([]byte(filepath.Clean(root)))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:6]
}

// Socket is where the API listens.
func (p Paths) Socket() string { return filepath.Join(p.Sockets, "gpuhost.sock") }

// SpecDir is the desired state read at start and on reload.
func (p Paths) SpecDir() string { return filepath.Join(p.Etc, "spec.d") }
