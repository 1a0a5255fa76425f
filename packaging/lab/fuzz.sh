#!/usr/bin/env bash
# Runs every fuzz target of the repository for a number of executions or a time:
#
#   packaging/lab/fuzz.sh 5000x
#   packaging/lab/fuzz.sh 1h
#
# CI takes the number: at the end of a time Go's coordinator can take its own
# deadline for a failure of the target ("context deadline exceeded",
# golang/go#75804, open in every Go 1.26).
set -euo pipefail

cd "$(dirname "$0")/../.."
budget=${1:?usage: fuzz.sh 5000x|1h}

count=0
while IFS=: read -r file target; do
	echo "fuzz $target in $(dirname "$file"), $budget"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$budget" -fuzzminimizetime 200x "./$(dirname "$file")"
	count=$((count + 1))
done < <(grep -rnoP --include='*_test.go' '^func \KFuzz\w+(?=\()' . | sed -E 's/:[0-9]+:/:/; s,^\./,,' | sort)
echo "$count fuzz targets ran $budget each, no crash"
