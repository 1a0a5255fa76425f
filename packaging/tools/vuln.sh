#!/usr/bin/env bash
# Compares what the product calls with the Go vulnerability database: GOVULNDB,
# else the internet. Without either it checks nothing, says so and exits 3.
set -euo pipefail

cd "$(dirname "$0")/../.."
database=${GOVULNDB:-https://vuln.go.dev}

reachable() {
	case $database in
	file://*) [[ -f ${database#file://}/index/db.json ]] ;;
	*) curl -sfo /dev/null --max-time 10 "$database/index/db.json" ;;
	esac
}

if ! reachable; then
	echo "NOT CHECKED: no vulnerability database at $database" >&2
	echo "hint: set GOVULNDB to a copy of it (file:///path)" >&2
	exit 3
fi
for dir in . packaging/runtime/containerd packaging/runtime/runc; do
	packages=./...
	[[ $dir == . ]] || packages=$(cd "$dir" && go list tool)
	echo "govulncheck in $dir"
	# shellcheck disable=SC2086 # one word per package
	go tool -modfile=packaging/tools/go.mod govulncheck -db "$database" -C "$dir" $packages
done
