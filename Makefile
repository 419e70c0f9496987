# Everything sets itself up: `make demo` and `make test` need Python 3.11+ with venv, git and make, nothing else.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: help setup setup-dev demo test test-engines check lint format schema lock clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.runtime ## leaves .venv/bin/llmtop
setup-dev: $(VENV)/.dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "llmtop needs Python 3.11 or newer with its venv module (Debian: apt install python3 python3-venv)" >&2; exit 1; }
ifneq ($(UV),)
	@$(UV) venv --quiet --python "$$(command -v $(PYTHON))" $(VENV)
else
	@$(PYTHON) -m venv $(VENV)
endif

# $(1): a lock file. Versions and hashes come from the lock; the project itself is installed as a link to this folder.
ifneq ($(UV),)
install = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $(1) && \
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1) && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) ..." >&2
	@$(call install,requirements.lock)
	@$(BIN)/python -m compileall -q llmtop tui engines loadgen themes
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "setting up $(VENV) for development ..." >&2
	@$(call install,requirements-dev.lock)
	@$(BIN)/python -m compileall -q llmtop tui engines loadgen themes tests
	@touch $@ $(VENV)/.runtime

demo: setup ## the dashboard on a simulated engine under a load ramp
	@$(BIN)/llmtop demo

test: setup-dev ## all tests that need no engine
	@$(BIN)/python -m pytest -q -n 4 --dist loadscope

test-engines: setup-dev ## the same program on real engines (builds them once, into a cache)
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope tests/engines_live

lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: setup-dev ## rewrite the code in the house style
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

check: lint test ## all of the fast checks

schema: setup ## write the schemas in docs anew; a test fails when one is out of date
	@$(BIN)/llmtop schema > docs/llmtop.schema.json
	@$(BIN)/llmtop schema --of requests > docs/schema/requests.schema.json

lock: ## pin versions and hashes anew (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" pyproject.toml --group build -o requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" pyproject.toml --group dev -o requirements-dev.lock

clean:
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
