#!/usr/bin/env bash
# Makes the packages of one processor: deb and rpm, gpuhost and gpuhost-runtime.
#
#   packaging/nfpm/build.sh amd64|arm64 DIR
#
# What goes in is a function of the commit alone: no paths, build ids, host names or
# times but the commit's own. Two clones give the same bytes (reproduce.sh).
set -euo pipefail

cd "$(dirname "$0")/../.."
arch=${1:?usage: build.sh ARCH DIR}
mkdir -p "${2:?usage: build.sh ARCH DIR}"
out=$(cd "$2" && pwd)

stage=$PWD/build/packages/$arch
VERSION=$(<packaging/VERSION)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export VERSION SOURCE_DATE_EPOCH ARCH=$arch
export LC_ALL=C TZ=UTC GOFLAGS=-mod=readonly GOWORK=off
umask 022

native=$(go env GOHOSTARCH)
cross=()
if [[ $arch != "$native" ]]; then
	cross=(packaging/nfpm/cross.sh "$arch")
fi

# -s and -w leave a debugger nothing to look at; the stack traces of a panic stay.
ldflags="-s -w -buildid= -X main.version=$VERSION"
build() { CGO_ENABLED=0 GOARCH=$arch go build -trimpath -ldflags "$ldflags" -o "$stage/bin/$1" "$2"; }
# run runs a command of this repository, compiled as build does, so that the packages
# it shares with the programs are compiled once.
run() { CGO_ENABLED=0 go run -trimpath -ldflags "$ldflags" "$@"; }
# nvml-helper opens NVIDIA's library while it runs and so needs the C library. Its calls
# into that library are bound when they are made (lazy): bound at the start, they would
# end a helper on every host, because no driver has them all. What NVIDIA's header
# calls deprecated is go-nvml's to leave.
build_cgo() {
	CGO_ENABLED=1 CGO_CFLAGS='-O2 -Wno-deprecated-declarations' GOARCH=$arch "${cross[@]}" go build -trimpath -buildmode=pie \
		-ldflags "$ldflags -extldflags '-Wl,--build-id=none,-z,lazy'" -o "$stage/bin/$1" "$2"
}

build_binaries() {
	build gpuhost .
	build warden ./isolation/warden
	build warden-services ./isolation/warden/services/daemon
	build holder ./systemd/holder
	build_cgo nvml-helper ./drivers/nvml/helper
	GOARCH=$arch "${cross[@]}" packaging/runtime/build.sh "build/runtime/$arch"
	cp build/runtime/"$arch"/{containerd,containerd-shim-runc-v2,runc} "$stage/bin/"
}

# write_texts makes what the program itself knows best.
write_texts() {
	local shell package
	run ./packaging/defaults -out "$stage/etc"
	run ./packaging/man -out "$stage/man"
	for shell in bash zsh fish; do
		run . completion "$shell" >"$stage/completions/gpuhost.$shell"
	done
	for package in gpuhost gpuhost-runtime; do
		packaging/nfpm/changelog.sh >"$stage/doc/$package.yaml"
	done
	gzip -9n <CHANGELOG.md >"$stage/doc/changelog.gz"
	gzip -9n "$stage"/man/*.8
}

# write_bill says what the programs of a package are made of: PACKAGE PROGRAM...
write_bill() {
	local package=$1 seccomp=()
	shift
	if [[ $package == gpuhost-runtime ]]; then
		seccomp=(-c "libseccomp=$("${cross[@]}" pkg-config --modversion libseccomp)")
	fi
	mkdir "$stage/doc/$package"
	run ./packaging/bom -name "$package" -version "$VERSION" -out "$stage/doc/$package" "${seccomp[@]}" "${@/#/$stage/bin/}"
	gzip -9n "$stage/doc/$package/third-party-notices"
}

# write_scripts puts the shared functions in front of each maintainer script.
write_scripts() {
	local script schema
	schema=$(<"$stage/etc/schema")
	for script in packaging/nfpm/scripts/gpuhost*; do
		{
			printf '#!/bin/sh\nset -e\n\n'
			cat packaging/nfpm/scripts/lib.sh
			echo
			cat "$script"
		} | sed -e "s/@SCHEMA@/$schema/g" -e "s/@VERSION@/$VERSION/g" >"$stage/scripts/${script##*/}"
	done
}

rm -rf "$stage"
mkdir -p "$stage"/{bin,etc,man,completions,doc,scripts}
cp packaging/nfpm/{*.yaml,10-package.toml,*.copyright,*.lintian} "$stage/"
mkdir "$stage/systemd" && cp systemd/gpuhost* "$stage/systemd/"
build_binaries
write_texts
write_bill gpuhost gpuhost warden warden-services holder nvml-helper
write_bill gpuhost-runtime containerd containerd-shim-runc-v2 runc
write_scripts

nfpm=$PWD/build/tools/nfpm
[[ -x $nfpm ]] || go build -modfile=packaging/tools/go.mod -o "$nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
cd "$stage"
for package in gpuhost gpuhost-runtime; do
	for format in deb rpm; do
		"$nfpm" package --config "$package.yaml" --packager "$format" --target "$out/" >/dev/null
	done
done
