# SPDX-License-Identifier: Apache-2.0
#
# Needs git, Go and make; `deps` installs the rest on Debian.

SHELL   := bash
BASTIDE := bin/bastide
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
TOOL    := go tool -modfile=tools/go.mod
export GOTOOLCHAIN := local

# What a bare Debian 12 lacks: a C compiler and libseccomp for runc, the node
# image's maker, the kernel's tools, and the clients that the tests drive.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config mmdebstrap nftables iproute2 conntrack \
            iptables procps openssl ca-certificates curl openssh-client azure-cli busybox-static iperf3 chromium

# What the first cluster needs; the other Kubernetes releases may follow.
FIRST := kubernetes@1.36.3 etcd runtime coredns metrics-server cloud-controller-manager kubelogin pause web

.DEFAULT_GOAL := help
.PHONY: help up down clean deps build bundles image test lint fmt bench conformance

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: deps build ## start an instance with the cluster `demo` and a small web app in it
	@$(BASTIDE) bundle build $(FIRST)
	@$(BASTIDE) image build
	@$(BASTIDE) up --demo
	@mkdir -p build; nohup nice $(BASTIDE) bundle build >build/bundles.log 2>&1 </dev/null &

down: ## stop the instance; its state stays
	@if [ -x $(BASTIDE) ]; then $(BASTIDE) down; fi

clean: ## stop the instance and remove its state, and what was built here
	@if [ -x $(BASTIDE) ]; then $(BASTIDE) clean --yes; fi
	@rm -rf bin build

deps: ## install the Debian packages that Bastide needs
	@missing=$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null | \
	  awk -v want='$(PACKAGES)' '$$2=="installed"{have[$$1]=1} END{n=split(want,w," ");for(i=1;i<=n;i++)if(!(w[i] in have))printf "%s ",w[i]}'); \
	if [ -n "$$missing" ]; then \
	  echo "installing $$missing"; log=$$(mktemp); export DEBIAN_FRONTEND=noninteractive; \
	  install() { apt-get install -qq -y --no-install-recommends $$missing >$$log 2>&1; }; \
	  install || { apt-get update -qq && install; } || { tail -20 $$log; exit 1; }; \
	  rm -f $$log; \
	fi

build: ## build bin/bastide, and beside it the agents in machines, bin/bastide-node and -netpolicy
	@CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.stamp=$(VERSION)' -o bin/ ./cmd/...

bundles: deps build ## build Kubernetes, etcd, containerd and the other upstream parts
	@$(BASTIDE) bundle build

image: bundles ## build the node image
	@$(BASTIDE) image build

test: deps build bundles image lint ## every test, those that need root and the kernel too
	@$(TOOL) gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -count=1 -timeout 50m ./...

lint: ## what a reader would say, said by golangci-lint
	@$(TOOL) golangci-lint run

fmt: ## format the code
	@$(TOOL) golangci-lint fmt

bench: deps build bundles image ## measure, print a table, write bench/results.json
	@go test -tags bench -count=1 -timeout 60m -run TestBench -v ./bench

# An hour and more: RUN=TestConformance/azure/policies chooses a part, FOCUS, a regular expression, tests of it.
RUN := TestConformance
conformance: deps build bundles image ## Kubernetes' own tests of networks, on an instance of their own; results in build/conformance
	@$(BASTIDE) bundle build e2e
	@FOCUS='$(FOCUS)' go test -tags conformance -count=1 -timeout 8h -run '$(RUN)' -v ./testcloud
