# Everything a person does with this repository. Each target does its own set-up; only Python 3.11+ and make are needed.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: help setup demo demo-cluster test lint lint-workflows unit chaos test-cluster cluster-up cluster-down kind skaffold charts bench bench-cluster lock clean

help: ## Show what there is to do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything that the other targets need

$(STAMP): requirements.lock pyproject.toml tools/check_machine.py
	@test -n "$(PYTHON)" || { echo "Torpor needs Python 3.11 or newer, and found none as python3 or python3.1x." >&2; exit 1; }
	@$(PYTHON) tools/check_machine.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Run the three patterns on real parts, in about two minutes (IMAGE=path takes your own picture)
	@$(BIN)/python -m demo $(if $(IMAGE),--image "$(IMAGE)")

demo-cluster: $(STAMP) ## The same on a Kubernetes: that of test-cluster
	@$(BIN)/python -m demo --cluster $(if $(IMAGE),--image "$(IMAGE)")

# Tests mostly wait for processes to start and to end, so that three at once fit two cores. Those of a file share what they start.
JOBS ?= 3

test: lint ## Lint, then the whole suite (JOBS=3 files at once)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(STAMP) ## ruff, mypy, import rules, lock file, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lint-workflows: $(STAMP) ## actionlint, which is built by Go the first time
	$$($(BIN)/python -m tests.cluster tool actionlint)

unit: $(STAMP) ## The fast tests alone
	$(BIN)/python -m pytest tests/unit

chaos: $(STAMP) ## Kill processes at random while 20,000 events are worked on, twenty times, for an hour (BROKER=kafka: with Kafka)
	$(BIN)/python -m tests.chaos --broker $(or $(BROKER),nats)

test-cluster: $(STAMP) ## The suite on a real Kubernetes: kind's where Docker runs, else one that it starts by itself (as root)
	$(BIN)/python -m pytest -s tests/cluster

cluster-up: $(STAMP) ## Have that Kubernetes run, and say how to reach it
	@$(BIN)/python -m tests.cluster up

cluster-down: $(STAMP) ## End it, and leave nothing
	@$(BIN)/python -m tests.cluster down

kind: $(STAMP) ## Have a Kubernetes by kind run, which needs Docker, and say how to reach it
	@TORPOR_CLUSTER=kind $(BIN)/python -m tests.cluster up

skaffold: $(STAMP) ## Build and deploy Torpor and the examples on such a cluster, again at each change (needs no Docker)
	@$(BIN)/python -m tests.cluster skaffold dev

charts: $(STAMP) ## Lint and test the Helm charts, which needs no cluster
	$(BIN)/python -m pytest tests/cluster/test_chart_torpor.py tests/cluster/test_chart_functions.py

bench: $(STAMP) ## Side-by-side benchmarks (several minutes)
	$(BIN)/python -m benchmarks.runtime
	$(BIN)/python -m benchmarks.wake
	$(BIN)/python -m benchmarks.filters
	$(BIN)/python -m benchmarks.records
	$(BIN)/python -m benchmarks.isolation
	$(BIN)/python -m benchmarks.events

bench-cluster: $(STAMP) ## How long waking takes on a real Kubernetes, beside a bare Deployment (ten minutes)
	$(BIN)/python -m benchmarks.wake_kubernetes

# What the platform's image has, at the versions of requirements.lock.
LOCK_IMAGE = $(BIN)/uv pip compile pyproject.toml --extra roles --constraint requirements.lock --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements-image.lock

lock: $(STAMP) ## Resolve requirements.lock and requirements-image.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --upgrade -o requirements.lock
	$(LOCK_IMAGE)

clean: ## Remove what the other targets made
	rm -rf $(VENV) build .torpor .mypy_cache .ruff_cache .pytest_cache .hypothesis
