# Every target that people call has a ## line; `make help` prints them.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
LINT    := bin/tools/golangci-lint
LINT_VERSION := v2.15.0

export CGO_ENABLED := 0
BUILD := go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/berth and bin/berthd, static
	$(BUILD) -o bin/berth ./cmd/berth
	$(BUILD) -o bin/berthd ./cmd/berthd

.PHONY: deps
deps: ## Install what Berth and its tests need of Debian (crun, conmon, nft …)
	@hack/deps

.PHONY: fixtures
fixtures: deps ## Make the images that tests, demo and bench use (cached)
	@go run ./testbed/cmd/mkimage

.PHONY: tools
tools: ## Build the programs that tests run and Debian lacks (cached, 5 min at first)
	@go run ./testbed/cmd/tools

.PHONY: test
test: fixtures tools ## Run all tests; as root also those that start containers
	go test -timeout 12m ./...

.PHONY: sim
sim: ## Play 50000 seeds of the agent's simulator, and long ones (30 min)
	go test ./agent -timeout 2h -run TestSim_Whatever -v -sim.from 100001 -sim.seeds 45000
	go test ./agent -timeout 2h -run TestSim_Whatever -v -sim.from 200001 -sim.seeds 5000 -sim.steps 3000

.PHONY: corpus
corpus: fixtures ## Bring 100 real stacks up with stand-in images (5 min)
	go test ./e2e -timeout 30m -run TestCorpus_RealStacks -v -corpus.stacks 100

.PHONY: lint
lint: $(LINT) ## Run golangci-lint
	$(LINT) run ./...

$(LINT):
	@mkdir -p $(@D)
	@found=$$(command -v golangci-lint) && "$$found" version | grep -q ' $(LINT_VERSION:v%=%) ' && ln -s "$$found" $@ || \
		GOBIN=$(CURDIR)/$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: fmt
fmt: $(LINT) ## Format the code as the linter wants it
	$(LINT) fmt ./...

.PHONY: bench
bench: build fixtures ## Time up and down; deploy, break and kill under load (30 min)
	go run ./bench

.PHONY: demo
demo: build fixtures ## Start an agent, bring up examples/hello and call it
	@hack/demo up

.PHONY: demo-down
demo-down: ## Take away everything that the demo made
	@hack/demo down

.PHONY: install
install: build ## Install both programs, man pages and completions below PREFIX (/usr/local)
	install -D -m 0755 bin/berth $(DESTDIR)$(PREFIX)/bin/berth
	install -D -m 0755 bin/berthd $(DESTDIR)$(PREFIX)/bin/berthd
	bin/berth man $(DESTDIR)$(PREFIX)/share/man/man1
	mkdir -p $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	bin/berth completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/berth
	bin/berth completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_berth
	bin/berth completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/berth.fish

.PHONY: clean
clean: ## Remove what was built here (the fixture cache stays)
	rm -rf bin dist
