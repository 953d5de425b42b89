# Everything it takes to build, run and test minigate. 'make help' lists it.

SHELL         := /bin/bash
.SHELLFLAGS   := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

BIN     := .cache/bin
STAMP   := .cache/stamp
TOOLS   := $(BIN)/gofumpt $(BIN)/staticcheck $(BIN)/errcheck
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

OUT     ?= minigate

# The one way the shipped binary is built; the Dockerfile calls it too.
GO_BUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

# Modules of their own.
NESTED = $(shell find . -mindepth 2 \( -name node_modules -o -name .cache \) -prune -o -name go.mod -printf '%h\n')
# Those that hold packages, and not just the versions of programs to build.
NESTED_CODE = $(shell for dir in $(NESTED); do test -z "$$(go list -C $$dir ./... 2>/dev/null)" || echo $$dir; done)
GO_FILES = $(shell find . \( -name node_modules -o -name .cache -o -name .git \) -prune -o -name '*.go' -print)
WEB_FILES = $(shell find web \( -name node_modules -o -name dist -o -name miniprogram_dist \) -prune -o -type f ! -name '*.go' ! -name '*.md' -print)

# What a Go test binary may take; the slowest package decides.
TEST_TIMEOUT ?= 20m
# What each fuzz target gets in 'make fuzz'.
FUZZ_TIME ?= 60s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##### run and build

.PHONY: dev
dev: build ## set up and start minigate alone, with simulator, sample backend and console (ARGS='--listen …')
	@exec ./minigate dev $(ARGS)

.PHONY: build
build: web binary ## console, SDK and the static binary ./minigate

.PHONY: binary
binary: ## the static binary alone, with the console built last, if any
	@scripts/require.sh go
	$(GO_BUILD) -o $(OUT) ./cmd/minigate

.PHONY: web
web: $(STAMP)/web ## console and SDK

$(STAMP)/web: $(WEB_FILES) web/node_modules/.stamp
	cd web && npm run build
	@mkdir -p $(@D) && touch $@

# npm ci begins by deleting node_modules, and with it the stamp.
web/node_modules/.stamp: web/package-lock.json web/.npmrc $(wildcard web/package.json web/*/package.json)
	@scripts/require.sh node
	cd web && npm ci --ignore-scripts
	@touch $@

##### test

.PHONY: setup
setup: programs $(TOOLS) $(BIN)/minio web ## everything the tests need; as root on Debian it installs missing programs

.PHONY: programs
programs:
	@scripts/require.sh go node git redis-server nginx chromium curl php python3 python3-jwt python3-websockets libwebsockets clamd

.PHONY: test
test: setup lint docs-check web-test go-test ## all set-up, then every check and test

.PHONY: lint
lint: $(TOOLS) ## formatting, vet, staticcheck, errcheck
	@unformatted=$$($(BIN)/gofumpt -l $(GO_FILES)); \
	  if [ -n "$$unformatted" ]; then echo "not formatted, run 'make fmt':"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(BIN)/staticcheck ./...
	$(BIN)/errcheck ./...
	GOOS=darwin GOARCH=arm64 go vet ./...
	GOOS=windows GOARCH=arm64 go vet ./...
	@for dir in $(NESTED_CODE); do \
	  echo "module $$dir"; go vet -C $$dir ./...; (cd $$dir && $(CURDIR)/$(BIN)/staticcheck ./... && $(CURDIR)/$(BIN)/errcheck ./...); \
	done

.PHONY: docs
docs: ## write docs/configuration.md from the settings in the code
	go run ./cmd/minigate docs > docs/configuration.md

.PHONY: docs-check
docs-check:
	@go run ./cmd/minigate docs | diff -u docs/configuration.md - || \
	  { echo "docs/configuration.md is out of date, run 'make docs'"; exit 1; }

.PHONY: web-test
web-test: web ## types and unit tests of console, SDK and example backend
	cd web && npm run check
	cd web && npm test
	node --test docs/examples/node-backend/*.test.mjs

# -count=1: many tests drive programs and pages that Go's test cache cannot see.
# -p 4: they spend half of their time waiting for those.
.PHONY: go-test
go-test: $(BIN)/minio
	@packages=$$(go list ./... | wc -l); echo "go test -race: $$packages packages"; \
	  go test -race -count=1 -p 4 -timeout $(TEST_TIMEOUT) ./... && echo "all $$packages packages pass"
	@for dir in $(NESTED_CODE); do \
	  echo "module $$dir"; go test -C $$dir -race -count=1 -timeout $(TEST_TIMEOUT) ./...; \
	done

.PHONY: test-long
test-long: setup fuzz ## every test in its long form, and every fuzz target for FUZZ_TIME
	LONG_TESTS=1 go test -count=1 -timeout 6h ./...
	@for dir in $(NESTED_CODE); do echo "module $$dir"; LONG_TESTS=1 go test -C $$dir -count=1 -timeout 6h ./...; done

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZ_TIME
	@scripts/fuzz.sh $(FUZZ_TIME)

.PHONY: bench
bench: ## Go benchmarks, and comparisons with other programs (BENCH='-duration 10s', SOCKETS='-rounds 1')
	@scripts/require.sh go nginx nchan redis-server
	go test -run '^$$' -bench . -benchmem -timeout 1h ./...
	go run -C bench ./proxy $(BENCH)
	go run -C bench ./sockets $(SOCKETS)
	go run -C bench ./storm
	go run -C bench ./files

##### housekeeping

.PHONY: fmt
fmt: $(BIN)/gofumpt ## format all Go code
	$(BIN)/gofumpt -w $(GO_FILES)

.PHONY: clean
clean: ## remove everything that was built; 'make clean' leaves ./data alone
	rm -rf .cache minigate web/node_modules web/*/miniprogram_dist
	find web/*/dist -type f ! -name .keep -delete 2>/dev/null || true # .keep is in the repository

# Built without the race detector and without cgo, whatever GOFLAGS say, and
# moved into place whole: several test processes may ask for it at once.
$(BIN)/minio: export GOFLAGS = -buildvcs=false
$(BIN)/minio: internal/testdeps/minio/go.mod internal/testdeps/minio/go.sum
	@echo "building the MinIO server for tests, which takes minutes the first time"; mkdir -p $(@D); \
	  CGO_ENABLED=0 go build -C internal/testdeps/minio -trimpath -ldflags '-s -w' \
	    -o $(CURDIR)/$@.$$$$ github.com/minio/minio && mv $@.$$$$ $@

$(TOOLS) &: internal/tools/go.mod internal/tools/go.sum
	@mkdir -p $(BIN)
	GOFLAGS=-buildvcs=false go build -C internal/tools -o $(CURDIR)/$(BIN)/ tool
	@touch $(TOOLS)
