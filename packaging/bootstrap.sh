#!/usr/bin/env bash
# Brings what building and testing need, and says nothing when all is there:
#
#   packaging/bootstrap.sh go      a Go command at build/go/go
#   packaging/bootstrap.sh build   … and what `make build runtime` needs
#   packaging/bootstrap.sh test    … and what the host tier of the tests needs
#   packaging/bootstrap.sh lab     … and what the lab needs, which is not the host tier's
#
# It installs Debian packages and therefore needs root for what is missing; on
# another distribution it names what to install.
set -euo pipefail

cd "$(dirname "$0")/.."
goal=${1:?usage: bootstrap.sh go|build|test|lab}

# An older Go cannot follow go.mod to a newer toolchain.
go_floor=21
backport=golang-1.23-go
backport_bin=/usr/lib/go-1.23/bin/go

missing=()

# need PACKAGE CHECK...: PACKAGE is missing where CHECK fails.
need() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

static_seccomp() { pkg-config --exists libseccomp && [[ -n $(gcc -print-file-name=libseccomp.a | grep /) ]]; }

check_build() {
	need gcc command -v gcc
	need libc6-dev test -e /usr/include/stdio.h
	need pkg-config command -v pkg-config
	need libseccomp-dev static_seccomp
	need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
}

check_test() {
	need busybox-static /bin/busybox --list
	need nftables command -v nft
	need iproute2 command -v ip
	need util-linux command -v unshare
	need systemd command -v systemd-analyze
}

check_lab() {
	need busybox-static /bin/busybox --list
	need qemu-system-x86 command -v qemu-system-x86_64
	need qemu-utils command -v qemu-img
	need e2fsprogs command -v mke2fs
	need mmdebstrap command -v mmdebstrap
	need xz-utils command -v xz
}

die() {
	printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
	exit 1
}

# install PACKAGE...: with apt, or not at all.
install() {
	command -v apt-get >/dev/null || die "missing: $*" "install these (Debian's names) with your package manager"
	((EUID == 0)) || die "missing: $*" "as root: apt-get install $*"
	echo "installing $*" >&2
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# usable GO: it runs, and is new enough to fetch the toolchain go.mod asks for.
usable() {
	local version
	version=$(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
	[[ $version =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= go_floor))
}

install_backport() {
	local id
	id=$(. /etc/os-release && echo "$ID-$VERSION_CODENAME")
	[[ $id == debian-bookworm ]] || die "no Go >= 1.$go_floor" "install one: https://go.dev/doc/install"
	((EUID == 0)) || die "no Go >= 1.$go_floor" "as root: make deps"
	if ! grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d; then
		echo 'deb http://deb.debian.org/debian bookworm-backports main' >/etc/apt/sources.list.d/gpuhost-backports.list
	fi
	install "$backport/bookworm-backports" "${backport%-go}-src/bookworm-backports"
}

# bring_go makes build/go/go a link to the first usable Go.
bring_go() {
	local candidate
	usable build/go/go && return
	mkdir -p build/go
	candidate=$(command -v go || true)
	for candidate in "$candidate" /usr/local/go/bin/go "$backport_bin"; do
		if usable "$candidate"; then
			ln -sfn "$(readlink -f "$candidate")" build/go/go
			return
		fi
	done
	install_backport
	ln -sfn "$backport_bin" build/go/go
}

case $goal in
go) need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt ;;
build) check_build ;;
test) check_build && check_test ;;
lab) check_build && check_lab ;;
*) die "unknown goal $goal" "go, build, test or lab" ;;
esac
if ((${#missing[@]})); then
	install "${missing[@]}"
fi
bring_go
