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
# quoted there, so that spaces, quotes and dollar signs in it mean nothing. NAME and RUN count only on make's command
# line: some systems have them in the environment already.
ifeq ($(origin NAME),command line)
export FLEDGE_NAME := $(value NAME)
endif
ifneq ($(origin PAGES),undefined)
export FLEDGE_PAGES := $(value PAGES)
endif
# A model with a name or pages of its own gets a run of its own: in the folder of the plain one it would be refused.
export FLEDGE_RUN := $(if $(or $(FLEDGE_NAME),$(FLEDGE_PAGES)),mine)
ifeq ($(origin RUN),command line)
export FLEDGE_RUN := $(value RUN)
endif
unexport NAME PAGES RUN
export FLEDGE_TORCH_INDEX := $(value TORCH_INDEX)

.PHONY: help quickstart smoke test test-long lint proof bench bench-quick clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.stamp ## raise a model on this machine: make quickstart [NAME=小雀] [PAGES=~/notes] [RUN=mine]
	@arguments=(); \
	if [ -n "$${FLEDGE_NAME:-}" ]; then arguments+=("assistant_name=$$FLEDGE_NAME"); fi; \
	if [ -n "$${FLEDGE_PAGES:-}" ]; then arguments+=("pages=$$FLEDGE_PAGES"); fi; \
	if [ -n "$${FLEDGE_RUN:-}" ]; then arguments+=(--name "$$FLEDGE_RUN"); fi; \
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
	cd benchmarks/sides && ../../$(BIN)/mypy --config-file ../../pyproject.toml *.py

proof: $(VENV)/.stamp-dev ## that the stages do something: two seeds, many items, paired intervals (20 minutes a seed)
	$(BIN)/python benchmarks/proof.py

bench: $(VENV)/.stamp-dev ## beside other libraries (benchmarks/README.md), 55 minutes; make the peers first: benchmarks/peers.sh
	$(BIN)/python benchmarks/all.py

bench-quick: $(VENV)/.stamp-dev ## the same from one short round, 20 minutes
	$(BIN)/python benchmarks/all.py --quick

clean: ## remove what was installed and cached here; runs are kept
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache

# The environment. Without an NVIDIA driver, and without TORCH_INDEX, constraints.txt decides which torch is installed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "fledge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# TORCH_INDEX is kept in a file: given anew or otherwise it takes effect in an environment that is there, left out it
# stays as it was given last.
ifneq ($(FLEDGE_TORCH_INDEX),)
$(VENV)/.stamp: $(VENV)/.torch-index
endif
.PHONY: asked
$(VENV)/.torch-index: asked | $(VENV)/bin/python
	@[ "$$(cat $@ 2>/dev/null || true)" = "$$FLEDGE_TORCH_INDEX" ] || printf '%s' "$$FLEDGE_TORCH_INDEX" > $@

$(VENV)/.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@constraints=(-c constraints.txt); kept=$(VENV)/.torch-index; \
	if [ -s "$$kept" ]; then \
		index=$$(cat "$$kept"); \
		if [ "$$kept" -nt $@ ]; then \
			$(BIN)/python -m pip install --quiet --index-url "$$index" --force-reinstall --no-deps torch; \
		fi; \
		$(BIN)/python -m pip install --quiet --index-url "$$index" torch; \
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
