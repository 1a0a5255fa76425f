# gpuhost: build, test, show. `make help` lists the targets.

SHELL := bash
.DEFAULT_GOAL := build
GO ?= go

.PHONY: help runtime

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

runtime: ## build containerd, its shim and runc into build/runtime/bin
	@GO=$(GO) packaging/runtime/build.sh build/runtime/bin
