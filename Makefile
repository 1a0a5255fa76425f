# gpuhost: build, test, show. `make help` lists the targets.
#
# Everything that is missing is brought by packaging/bootstrap.sh, Go included;
# everything that is made lies below build/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

# build/go/go is a link to the Go that bootstrap.sh chose. It may fetch the
# toolchain that go.mod asks for, which Debian's own is too old for.
export PATH := $(CURDIR)/build/go:$(PATH)
export GOTOOLCHAIN := auto

bin := build/bin
libexec := build/libexec
tool := go tool -modfile=packaging/tools/go.mod
version := $(shell cat packaging/VERSION)
go_build := go build -trimpath -buildvcs=auto -ldflags '-X main.version=$(version)'

TESTFLAGS ?=
FUZZTIME ?= 30s
BENCH ?= .
ARCH ?= amd64

.PHONY: help deps build runtime test test-pure test-host lab demo bench fuzz cover man lint vuln packages repo lint-packages reproduce clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what building and testing need, and download modules
	@packaging/bootstrap.sh test
	@packaging/modules.sh download

build: ## build gpuhost and its helpers into build/
	@packaging/bootstrap.sh build
	CGO_ENABLED=0 $(go_build) -o $(bin)/gpuhost .
	CGO_ENABLED=0 $(go_build) -o $(libexec)/warden ./isolation/warden
	CGO_ENABLED=0 $(go_build) -o $(libexec)/warden-services ./isolation/warden/services/daemon
	CGO_ENABLED=1 $(go_build) -o $(libexec)/nvml-helper ./drivers/nvml/helper
	CGO_ENABLED=0 $(go_build) -o $(bin)/mkimage ./packaging/lab/mkimage
	@printf '%s\n' '# Settings of an agent that runs from this folder.' \
		'[runtime]' 'dir = "$(CURDIR)/build/runtime/bin"' \
		'[programs]' 'nvml_helper = "$(CURDIR)/$(libexec)/nvml-helper"' 'warden = "$(CURDIR)/$(libexec)/warden"' >build/gpuhost.toml

runtime: ## build containerd, its shim and runc into build/runtime/bin
	@packaging/bootstrap.sh build
	@packaging/runtime/build.sh build/runtime/bin

test: deps runtime build ## run the pure and the host tier, race detector on
	@packaging/lab/test.sh all $(TESTFLAGS)

test-pure: ## run the pure tier only: no root, no namespaces
	@packaging/bootstrap.sh go
	@packaging/lab/test.sh pure $(TESTFLAGS)

test-host: deps runtime ## run the host tier only: real kernel parts, private namespaces
	@packaging/lab/test.sh host $(TESTFLAGS)

lab: build ## run the lab tier: a real Debian guest (SCENARIO='a b', KEEP=1 for its console, VERBOSE=1)
	@packaging/bootstrap.sh lab
	@$(MAKE) packages ARCH=amd64
	@KEEP=$(KEEP) VERBOSE=$(VERBOSE) packaging/lab/lab.sh $(SCENARIO)

demo: deps runtime build ## show the main job on a simulated DGX H100 (KEEP=1 leaves it running)
	@KEEP=$(KEEP) packaging/demo/run.sh

bench: deps runtime build ## measure the promises of docs/specification.md (BENCH=regexp)
	@packaging/runtime/build.sh --peer build/runtime/peer
	@packaging/bench/run.sh '$(BENCH)'

fuzz: ## run each fuzz target for FUZZTIME
	@packaging/bootstrap.sh go
	@packaging/lab/fuzz.sh $(FUZZTIME)

cover: ## show the pure tier's statement coverage
	@packaging/bootstrap.sh build
	@mkdir -p build
	go test -short -coverprofile build/cover.out ./... >/dev/null
	@go tool cover -func build/cover.out | tail -1

man: ## write man pages and shell completions into build/
	@packaging/bootstrap.sh go
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) go run ./packaging/man -out build/man
	@mkdir -p build/completions
	@for shell in bash zsh fish; do go run . completion $$shell >build/completions/gpuhost.$$shell; done

packages: ## make deb and rpm below build/packages/out (ARCH="amd64 arm64" for both)
	@packaging/bootstrap.sh build
	@for arch in $(ARCH); do packaging/nfpm/build.sh $$arch build/packages/out; done

repo: packages ## make signed repositories of them for apt and dnf in build/repo (SIGNING_KEY, BASE)
	@packaging/repo/make.sh build/packages/out build/repo
	@packaging/repo/check.sh build/repo

lint-packages: packages ## ask lintian and rpmlint about the packages
	@packaging/nfpm/lint.sh build/packages/out

reproduce: ## build the packages from two clones and compare the bytes (ARCH)
	@packaging/bootstrap.sh build
	@packaging/nfpm/reproduce.sh $(ARCH)

lint: ## check format, vet and staticcheck
	@packaging/bootstrap.sh build
	@packaging/lab/gofmt.sh
	go vet ./...
	$(tool) staticcheck ./...

vuln: ## check for published vulnerabilities (needs GOVULNDB or the network)
	@packaging/bootstrap.sh go
	@packaging/tools/vuln.sh

clean: ## remove build/
	rm -rf build
