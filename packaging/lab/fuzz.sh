#!/usr/bin/env bash
# Runs every fuzz target of the repository for a while:
#
#   packaging/lab/fuzz.sh 5s
set -euo pipefail

cd "$(dirname "$0")/../.."
time=${1:?usage: fuzz.sh DURATION}

count=0
while IFS=: read -r file target; do
	echo "fuzz $target in $(dirname "$file") for $time"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")"
	count=$((count + 1))
done < <(grep -rnoP --include='*_test.go' '^func \KFuzz\w+(?=\()' . | sed -E 's/:[0-9]+:/:/; s,^\./,,' | sort)
echo "$count fuzz targets ran $time each, no crash"
