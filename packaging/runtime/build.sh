#!/usr/bin/env bash
# Builds upstream's containerd, its shim and runc, unmodified, into one folder:
#
#   packaging/runtime/build.sh DIR          what gpuhost runs
#   packaging/runtime/build.sh --peer DIR   ctr, which benchmarks stand beside
#
# Each project is a module of its own here, so that version selection cannot
# move its dependencies: what is built is what upstream tested. A stamp of
# everything that decides the result (module files, this script, the Go
# version), and sums of what came of it, make a second call free.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
target=runtime
if [[ ${1-} == --peer ]]; then
	target=peer
	shift
fi
out=${1:?usage: build.sh [--peer] DIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Plugins that only a Kubernetes node or another snapshotter needs.
containerd_tags=no_cri,no_btrfs,no_devmapper,no_zfs,no_tracing
containerd_module=github.com/containerd/containerd/v2
# libpathrs, upstream's other tag, needs Rust.
runc_tags=seccomp,netgo,osusergo
runc_module=github.com/opencontainers/runc

export GOWORK=off GOFLAGS=-mod=readonly

stamp() { (cd "$here" && go version && cat build.sh ./*/go.mod ./*/go.sum) | sha256sum; }

# upstream_version MODULE: the version the module in the current folder requires.
upstream_version() { go list -m -f '{{.Version}}' "$1"; }

# build_containerd COMMAND...: some of containerd's commands.
build_containerd() {
	cd "$here/containerd"
	local version
	version=$(upstream_version "$containerd_module")
	CGO_ENABLED=0 go build -trimpath -tags "$containerd_tags" \
		-ldflags "-s -w -X $containerd_module/version.Version=$version" -o "$out/" \
		"${@/#/$containerd_module/cmd/}"
}

# runc starts as C before Go's runtime does, hence cgo; a static-pie needs
# nothing of the host, not even its C library.
build_runc() {
	cd "$here/runc"
	CGO_ENABLED=1 go build -trimpath -buildmode=pie -tags "$runc_tags" \
		-ldflags '-s -w -linkmode external -extldflags -static-pie' -o "$out/runc" "$runc_module"
}

# built says whether what lies there is what an earlier call made of the same.
built() {
	[[ -f $out/.stamp && $(<"$out/.stamp") == "$want" ]] &&
		(cd "$out" && sha256sum --check --status --strict .sums 2>/dev/null)
}

want=$(stamp)
if built; then
	exit 0
fi
rm -f "$out/.stamp"
case $target in
runtime)
	echo "building containerd, its shim and runc (about two minutes, once)" >&2
	(build_containerd containerd containerd-shim-runc-v2)
	(build_runc)
	;;
peer)
	echo "building ctr" >&2
	(build_containerd ctr)
	;;
esac
(cd "$out" && sha256sum -- * >.sums)
echo "$want" >"$out/.stamp"
