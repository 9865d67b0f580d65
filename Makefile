# What one types here. `make` alone lists it. Needs GNU make, git and a Python from 3.10 on; installs the rest itself,
# into .venv, and only when pyproject.toml or the constraints changed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INPUTS := pyproject.toml requirements/constraints.txt shared/aiocop_wire/_version.py

# Another Python than the one that is found: make test PYTHON=/usr/bin/python3.13
PYTHON ?=
# Arguments for pytest or the demo: make test ARGS="-k wheel", make demo ARGS="--seconds 30"
ARGS ?=
# ONCE=1 make demo: exit after the table, with the verdict as status.
ONCE ?=
export ONCE

# Most tests wait for processes of their own: one worker per core, a file's tests in one worker. PARALLEL= runs them in one.
PARALLEL = -n auto --dist loadfile

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(STAMP) ## Sample service, collector, requests, and the table of what froze the loops (ONCE=1: exit after it)
	@cd examples && ../$(BIN)/python -m demo $(if $(filter-out 0,$(ONCE)),--once) $(ARGS)

.PHONY: test
test: lint ## Every gate and every test
	$(BIN)/pytest $(PARALLEL) $(ARGS)

.PHONY: lint
lint: $(STAMP) ## The gates alone: ruff, mypy, import-linter, shellcheck, hadolint, the schema of compose files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run scripts/*.sh
	$(BIN)/hadolint deploy/*Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml

.PHONY: format
format: $(STAMP) ## Sort imports and format everything
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

.PHONY: test-all
test-all: ## The tests on every CPython from 3.10 on that is installed
	@scripts/test-all.sh $(ARGS)

.PHONY: test-containers
test-containers: $(STAMP) ## Build the images and run deploy/compose.yaml on a local engine (as root, on Debian)
	@scripts/with-container-engine.sh $(BIN)/pytest -m containers $(ARGS)

.PHONY: test-chaos
test-chaos: $(STAMP) ## The long form of tests/chaos: fifty kills, a hundred agents, a million hostile messages (root: more)
	CHAOS=long $(BIN)/pytest tests/chaos $(ARGS)

.PHONY: published-tests
published-tests: $(STAMP) ## The tests of the published aiocop 1.2.1 that touch no internals, against ours (fetches them)
	$(BIN)/python scripts/published_tests.py

.PHONY: soak
soak: $(STAMP) ## Agents and a collector under load for five minutes: memory must stay flat (ARGS="--seconds 900")
	$(BIN)/python scripts/soak.py $(ARGS)

.PHONY: bench
bench: $(STAMP) ## What the agent costs, beside nothing and the published aiocop (ARGS=--quick: a look; ARGS=--write: keep it)
	$(BIN)/python benchmarks/run_benchmark.py $(ARGS)

.PHONY: bench-others
bench-others: $(STAMP) ## The other benchmarks: import time, start-up, recording, ingest, questions to a large store
	@set -e; for name in import_time start_up recording ingest queries; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

.PHONY: bench-peers
bench-peers: $(STAMP) ## What ingest costs, beside statsd, collectd and netdata (needs npm; root; ARGS=--write: keep it)
	$(BIN)/python benchmarks/ingest_peers.py $(ARGS)

.PHONY: detection
detection: $(STAMP) ## What is detected, ours beside the published aiocop; writes docs/detection.md
	$(BIN)/python scripts/detection_table.py $(ARGS)

.PHONY: lock
lock: ## Write requirements/constraints.txt anew (needs Python 3.10 to 3.13)
	@python3 scripts/lock.py

.PHONY: clean
clean: ## Remove everything that was made here
	rm -rf .venv .venvs .cache build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): $(INPUTS) scripts/make-venv.sh
	@PYTHON="$(PYTHON)" scripts/make-venv.sh $(VENV)
