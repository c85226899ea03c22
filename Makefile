.PHONY: check test bench build

check: ## everything that CI runs
	bash .ci/run

test:
	go test ./...

bench: ## see bench/RESULTS.md
	bash bench/run

build:
	CGO_ENABLED=0 go build -trimpath -o beacon ./cmd/beacon
