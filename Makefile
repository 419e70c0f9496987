# Everything sets itself up: `make demo` and `make test` need Python 3.11+ with venv, git and make, nothing else.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.PHONY: help setup setup-dev demo test test-more test-engines check lint format schema man pictures lock clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(VENV)/.runtime ## leaves .venv/bin/llmtop
setup-dev: $(VENV)/.dev

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "llmtop needs Python 3.11 or newer with its venv module (Debian: apt install python3 python3-venv)" >&2; exit 1; }
	@$(call step,setting up $(VENV),$(venv))

ifneq ($(UV),)
venv = $(UV) venv --quiet --python "$$(command -v $(PYTHON))" $(VENV)
else
venv = $(PYTHON) -m venv $(VENV)
endif

# $(1): a lock file. Versions and hashes come from the lock.
ifneq ($(UV),)
install = $(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r $(1)
link = $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
link = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
compile = $(BIN)/python -m compileall -q llmtop tui engines loadgen themes

# What pytest made of the tests is kept for the next run and for all workers: without it each of them
# needs 15 s of CPU time before the first test, with it 4 s.
KEPT = env -u PYTHONDONTWRITEBYTECODE

# $(call step,words,command): says at once what begins, a dot each two seconds, and how long it took.
step = printf '%s ' "$(1)" >&2; began=$$(date +%s); \
	( while sleep 2; do printf . >&2; done ) & beat=$$!; trap "kill $$beat 2>/dev/null" EXIT; \
	( $(2) ) || { echo " failed" >&2; exit 1; }; echo " $$(( $$(date +%s) - began )) s" >&2

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@$(call step,dependencies: $$(grep -c '^[a-z]' requirements.lock) packages,$(call install,requirements.lock))
	@$(call step,llmtop itself,$(link))
	@$(call step,compiling,$(compile))
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@$(call step,dependencies: $$(grep -c '^[a-z]' requirements-dev.lock) packages,$(call install,requirements-dev.lock))
	@$(call step,llmtop itself,$(link))
	@$(call step,compiling,$(compile))
	@$(call step,compiling the tests,$(KEPT) $(BIN)/python -m pytest -q --collect-only > /dev/null || true)
	@touch $@ $(VENV)/.runtime

demo: setup ## the dashboard on a simulated engine under a load ramp
	@$(BIN)/llmtop demo

# Most tests wait for processes, so there are more workers than cores. Tests of a module that share an
# engine stay in one worker, whatever --dist says (tests/scheduling.py).
PYTEST = $(KEPT) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope $(AGAIN)
WORKERS ?= 7

# RERUNS=1: a test that fails is run once more. The summary counts and names it.
RERUNS ?= 0
AGAIN = --reruns $(RERUNS) -r R

test: setup-dev ## every command, screen and fault, in minutes; needs no engine
	@$(PYTEST) -m "not more"

test-more: setup-dev ## the other processes, sizes and themes; needs no engine
	@$(PYTEST) -m more

test-engines: setup-dev ## the same program on real engines (builds them once, into a cache)
	@$(KEPT) $(BIN)/python -m pytest -q -n 2 --dist loadscope $(AGAIN) tests/engines_live

lint: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: setup-dev ## rewrite the code in the house style
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

check: lint test ## all of the fast checks

schema: setup ## write the schemas of docs/; a test reports stale ones
	@$(BIN)/llmtop schema > docs/llmtop.schema.json
	@$(BIN)/llmtop schema --of requests > docs/schema/requests.schema.json
	@$(BIN)/llmtop schema --of steps > docs/schema/steps.schema.json
	@$(BIN)/llmtop schema --of request-table > docs/schema/request-table.schema.json
	@$(BIN)/llmtop schema --of why > docs/schema/why.schema.json
	@$(BIN)/llmtop schema --of abort > docs/schema/abort.schema.json
	@$(BIN)/llmtop schema --of fleet > docs/schema/fleet.schema.json

man: setup ## write the manual page from the help; a test fails when it is out of date
	@$(BIN)/llmtop man > docs/llmtop.1

pictures: setup-dev ## draw all pictures of the docs from the program; a test reports stale ones
	@$(BIN)/python -m tests.pictures

lock: ## renew pinned versions and hashes (needs uv)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" pyproject.toml --group build -o requirements.lock
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" pyproject.toml --group dev -o requirements-dev.lock

clean:
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
