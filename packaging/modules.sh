#!/usr/bin/env bash
# Does one thing to every module of the repository:
#
#   packaging/modules.sh download   fetch what go.sum names
#   packaging/modules.sh verify     compare the cache with go.sum
set -euo pipefail

cd "$(dirname "$0")/.."
verb=${1:?usage: modules.sh download|verify}

for mod in go.mod packaging/runtime/*/go.mod packaging/tools/go.mod; do
	(cd "$(dirname "$mod")" && GOFLAGS=-mod=readonly go mod "$verb" >/dev/null) || {
		echo "error: go mod $verb failed for $mod" >&2
		exit 1
	}
done
