#!/usr/bin/env bash
# Runs the benchmarks of the repository whose names match, one package at a
# time, and says on what machine and how busy it was:
#
#   packaging/bench/run.sh REGEXP
set -euo pipefail

cd "$(dirname "$0")/../.."
pattern=${1:?usage: run.sh REGEXP}

printf 'machine: %s, %s CPUs, Linux %s, %s; load %s\n' \
	"$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)" "$(nproc)" "$(uname -r)" "$(go version)" "$(cut -d ' ' -f 1-3 /proc/loadavg)"
mapfile -t packages < <(grep -rlE --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u | grep -vx ./packaging/bench)
go test -p 1 -run '^$' -bench "$pattern" -timeout 60m "${packages[@]}"
# These count for themselves how often they do what they measure.
go test -run '^$' -bench "$pattern" -benchtime 1x -timeout 60m ./packaging/bench
