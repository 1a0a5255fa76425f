#!/usr/bin/env bash
# Runs a command with what C code for another processor needs, from Debian:
#
#   packaging/nfpm/cross.sh arm64 go build …
#
# The compiler is a package of this machine's; libseccomp is the other processor's
# own, unpacked below build/ and not installed.
set -euo pipefail

cd "$(dirname "$0")/../.."
arch=${1:?usage: cross.sh ARCH COMMAND...}
shift
[[ $arch == arm64 ]] || { echo "error: no cross compiler for $arch is known here" >&2 && exit 1; }
triplet=aarch64-linux-gnu
root=$PWD/build/cross/$arch

# fetch_libseccomp downloads with lists of its own, so that the machine's package
# manager keeps to the machine's processor.
fetch_libseccomp() {
	local apt=$root/apt
	mkdir -p "$apt"/{lists/partial,cache/archives/partial}
	local options=(-qq -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
	apt-get "${options[@]}" update
	(cd "$apt" && apt-get "${options[@]}" download libseccomp-dev:"$arch" libseccomp2:"$arch")
	local deb
	for deb in "$apt"/libseccomp*.deb; do
		dpkg-deb -x "$deb" "$root"
	done
	rm -rf "$apt"
	touch "$root/.complete"
}

command -v $triplet-gcc >/dev/null || { echo 'error: no cross compiler' >&2 && echo 'hint: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross' >&2 && exit 1; }
[[ -e $root/.complete ]] || fetch_libseccomp >&2
export CC=$triplet-gcc PKG_CONFIG_LIBDIR=$root/usr/lib/$triplet/pkgconfig PKG_CONFIG_SYSROOT_DIR=$root
exec "$@"
