#!/usr/bin/env bash
# Keeps packaging/pinned.tsv, the list of module versions that somebody has
# looked at, equal to the go.mod files:
#
#   packaging/pinned.sh check    fails and shows the difference
#   packaging/pinned.sh write    accepts what go.mod says now
#
# A version that moves because another dependency asked for it is then a line
# in a review, not a surprise.
set -euo pipefail

cd "$(dirname "$0")/.."
list=packaging/pinned.tsv

required() {
	local mod
	for mod in go.mod packaging/runtime/*/go.mod packaging/tools/go.mod; do
		go mod edit -json "$mod" | awk -v mod="$mod" -F '"' '
			/"Require": \[/ {inside = 1}
			/^\t\]/ {inside = 0}
			inside && $2 == "Path" {path = $4}
			inside && $2 == "Version" {printf "%s\t%s\t%s\n", mod, path, $4}'
	done
}

case ${1:?usage: pinned.sh check|write} in
write) required >"$list" ;;
check)
	if ! diff -u "$list" <(required); then
		echo "error: go.mod and $list differ" >&2
		echo "hint: look at what the new versions change, then packaging/pinned.sh write" >&2
		exit 1
	fi
	;;
*) echo "error: unknown verb $1" >&2 && exit 2 ;;
esac
