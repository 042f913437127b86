# What a fresh machine with Python >= 3.11, pip and make needs: `make demo` and `make test`.
# Everything else (uv, the libraries, Kafka, Java) comes along by itself.

SHELL := /bin/bash
PYTHON ?= python3
BOOT := build/uv
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
PYTEST ?=
# An active environment of the caller must not become the target of uv.
unexport VIRTUAL_ENV
# The one uv on the path if there is one, else one of our own in build/.
UV := $(or $(shell command -v uv 2>/dev/null),$(BOOT)/bin/uv)

.PHONY: help install demo test lint format types check-imports docs lock clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP)  ## create .venv from requirements.lock

$(BOOT)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Groundswell needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 1; }
	@echo "bringing uv along (once)"
	@PIP_ROOT_USER_ACTION=ignore $(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --target $(BOOT) uv
	@test -x $@

# Keyed on the lock and the package's own description: quick when neither changed.
$(STAMP): requirements.lock pyproject.toml | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)
	@echo "installing from requirements.lock (the first time this takes minutes: PyTorch is large)"
	@[ -x $(PY) ] || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	@$(UV) pip sync --python $(PY) --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## everything on this machine: ARGS="--minutes 1 --json"
	@$(VENV)/bin/groundswell demo $(ARGS)

# Each step says its name, all stop at the first failure; pytest shows its own progress.
test: $(STAMP) lint types check-imports  ## all checks and all tests
	@echo "== pytest"
	@$(PY) -m pytest $(PYTEST)

lint: $(STAMP)  ## ruff: rules and format
	@echo "== ruff"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

format: $(STAMP)  ## let ruff mend what it can
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

types: $(STAMP)  ## mypy --strict
	@echo "== mypy"
	@$(VENV)/bin/mypy

check-imports: $(STAMP)  ## the contracts between the packages
	@echo "== import-linter"
	@$(VENV)/bin/lint-imports --no-logo

docs: $(STAMP)  ## write the generated pages anew
	@$(PY) -m streams.reference --write

lock: | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)  ## compile requirements.lock anew
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links requirements.in --output-file requirements.lock

clean:  ## remove .venv and what was built
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
