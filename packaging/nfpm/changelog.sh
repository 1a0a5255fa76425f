#!/usr/bin/env bash
# Prints the package's changelog as nfpm reads it: one entry, of the version in
# packaging/VERSION and the commit's time. What changed is in CHANGELOG.md.
set -euo pipefail

cat <<YAML
- semver: "$VERSION-1"
  date: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
  packager: gpuhost developers <gpuhost@gpuhost.invalid>
  deb:
    urgency: medium
    distributions: [stable]
  changes:
    - note: "Release $VERSION; changelog.gz has the changes."
YAML
