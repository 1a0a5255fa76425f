#!/usr/bin/env bash
# Builds the packages of this commit twice, from two clones in folders of different
# names, and compares them byte for byte:
#
#   packaging/nfpm/reproduce.sh [ARCH...]
set -euo pipefail

cd "$(dirname "$0")/../.."
(($#)) || set -- amd64 arm64
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for clone in one another/and-longer; do
	git clone --quiet --no-hardlinks . "$tmp/$clone"
	for arch in "$@"; do
		"$tmp/$clone/packaging/nfpm/build.sh" "$arch" "$tmp/$clone/out"
	done
done
cd "$tmp"
(cd one/out && sha256sum ./*)
if ! diff -r one/out another/and-longer/out; then
	echo 'error: two builds of one commit differ' >&2
	echo 'hint: diffoscope says where: apt-get install diffoscope' >&2
	exit 1
fi
echo "two clones of $(git -C one log -1 --format=%h) give the same bytes"
