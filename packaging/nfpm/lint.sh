#!/usr/bin/env bash
# Asks lintian and rpmlint about packages; both know what stays as it is from the
# explained lists beside this script:
#
#   packaging/nfpm/lint.sh DIR
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: lint.sh DIR}
for tool in lintian rpmlint; do
	command -v $tool >/dev/null || { echo "error: $tool is missing" >&2 && echo "hint: apt-get install $tool" >&2 && exit 1; }
done
lintian --allow-root --display-experimental --pedantic --display-info --fail-on error,warning,info,pedantic "$dir"/*.deb
rpmlint --config "$here/rpmlint.toml" "$dir"/*.rpm
