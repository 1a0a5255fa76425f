#!/usr/bin/env bash
# Runs tiers of the tests with the race detector, prints go test's own lines
# and then one line of sums:
#
#   packaging/lab/test.sh all|pure|host [go test flags]
#
# The pure tier is every package with -short. The host tier is every package
# whose TestMain is hosttest.Main, one at a time: they share the machine's
# cgroup hierarchy and two busy containerds distort each other's timeouts.
set -euo pipefail

cd "$(dirname "$0")/../.."
tier=${1:?usage: test.sh all|pure|host [go test flags]}
shift

mkdir -p build/test
log=build/test/$tier.log
: >"$log"

# run FLAGS...: go test, kept in the log; its status is the worst of all runs.
status=0
run() { go test -race -timeout 25m "$@" 2>&1 | tee -a "$log" || status=1; }

pure() { run -short "$@" ./...; }

host() {
	local packages
	mapfile -t packages < <(grep -rl --include='*_test.go' 'hosttest\.Main(' . | xargs -n1 dirname | sort -u)
	run -p 1 "$@" "${packages[@]}"
}

case $tier in
pure) pure "$@" ;;
host) host "$@" ;;
all) pure "$@" && host "$@" ;;
*) echo "error: unknown tier $tier" >&2 && exit 2 ;;
esac

# count PATTERN: lines of the log that match.
count() { grep -c "$1" "$log" || true; }
printf 'packages: %d ok, %d failed; tests named above as failed: %d, as skipped: %d; %ds\n' \
	"$(count '^ok ')" "$(count '^FAIL[[:space:]]')" "$(count '^ *--- FAIL')" "$(count '^ *--- SKIP')" "$SECONDS"
exit "$status"
