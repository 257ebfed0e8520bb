# make help   lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs
PYTEST_FLAGS ?=

# What the user gives is handed to the shell as variables of the environment, taken as it stands ($(value ...)) and
# quoted there, so that spaces, quotes and dollar signs in it mean nothing. NAME counts only on make's command line:
# some systems have it in the environment already.
ifeq ($(origin NAME),command line)
export FLEDGE_NAME := $(value NAME)
endif
ifneq ($(origin PAGES),undefined)
export FLEDGE_PAGES := $(value PAGES)
endif
unexport NAME PAGES
export FLEDGE_TORCH_INDEX := $(value TORCH_INDEX)

.PHONY: help quickstart smoke test test-long lint proof clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.stamp ## raise a model on this machine: make quickstart [NAME=小雀] [PAGES=~/notes]
	@arguments=(); \
	if [ -n "$${FLEDGE_NAME:-}" ]; then arguments+=("assistant_name=$$FLEDGE_NAME"); fi; \
	if [ -n "$${FLEDGE_PAGES:-}" ]; then arguments+=("pages=$$FLEDGE_PAGES"); fi; \
	exec $(BIN)/fledge run fledgling "$${arguments[@]}" --out '$(OUT)'

smoke: $(VENV)/.stamp ## the same chain at its smallest, in a temporary folder
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(BIN)/fledge run smoke --out "$$folder"; \
	$(BIN)/fledge run smoke --out "$$folder" 2>&1 | grep -F 'nothing to do'

test: $(VENV)/.stamp-dev ## the whole suite but what is slow by nature
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m 'not long' $(PYTEST_FLAGS)

test-long: $(VENV)/.stamp-dev ## all of it
	$(BIN)/python -m pytest -n auto --maxprocesses 4 $(PYTEST_FLAGS)

lint: $(VENV)/.stamp-dev ## style and types
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*.py

proof: $(VENV)/.stamp-dev ## that the stages do something: two seeds, many items, paired intervals (an hour)
	$(BIN)/python benchmarks/proof.py

clean: ## remove what was installed and cached here; runs are kept
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache

# The environment. Without an NVIDIA driver, and without TORCH_INDEX, constraints.txt decides which torch is installed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "fledge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@constraints=(-c constraints.txt); \
	if [ -n "$${FLEDGE_TORCH_INDEX:-}" ]; then \
		$(BIN)/python -m pip install --quiet --index-url "$$FLEDGE_TORCH_INDEX" torch; \
		constraints=(); \
	elif command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then \
		echo 'An NVIDIA driver is here: installing the torch build of your package index with CUDA.'; \
		constraints=(); \
	fi; \
	$(BIN)/python -m pip install --quiet "$${constraints[@]}" -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp
	@$(BIN)/python -m pip install --quiet -e '.[dev,parity]'
	@touch $@
