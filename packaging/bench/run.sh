#!/usr/bin/env bash
# Runs the benchmarks of the repository whose names match, one package at a
# time, and says on what machine:
#
#   packaging/bench/run.sh REGEXP
set -euo pipefail

cd "$(dirname "$0")/../.."
pattern=${1:?usage: run.sh REGEXP}

printf 'machine: %s, %s CPUs, Linux %s, %s\n' \
	"$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)" "$(nproc)" "$(uname -r)" "$(go version)"
mapfile -t packages < <(grep -rlE --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u)
go test -p 1 -run '^$' -bench "$pattern" -timeout 60m "${packages[@]}"
