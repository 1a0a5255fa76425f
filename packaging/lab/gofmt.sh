#!/usr/bin/env bash
# Fails with the names of files that gofmt would change.
set -euo pipefail

cd "$(dirname "$0")/../.."
unformatted=$(git ls-files -co --exclude-standard '*.go' | xargs "$(go env GOROOT)/bin/gofmt" -l)
if [[ -n $unformatted ]]; then
	printf 'error: not formatted:\n%s\nhint: gofmt -w these files\n' "$unformatted" >&2
	exit 1
fi
