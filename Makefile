# What a fresh machine with Python >= 3.11, pip and make needs: `make demo` and `make test`.
# Everything else (uv, the libraries, Kafka, Java) comes along by itself.

SHELL := /bin/bash
PYTHON ?= python3
BOOT := build/uv
AUDIT := build/audit
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
PYTEST ?=
# Half of what the tests take they wait; files are handed out whole, as what they share is dear to start.
JOBS ?= 2
# Tests that were skipped, with what they miss; shown last, and without a tool a failure where CI is set.
NOT_RUN := build/not-run
test: export NOT_RUN := $(CURDIR)/$(NOT_RUN)
# An active environment of the caller must not become the target of uv.
unexport VIRTUAL_ENV
# The one uv on the path if there is one, else one of our own in build/.
UV := $(or $(shell command -v uv 2>/dev/null),$(BOOT)/bin/uv)

.PHONY: help install demo test test-fast tools fuzz lint format types check-imports chaos soak overload scaling bench bench-e2e bench-gpu docs lock audit sbom clean

help:  ## say what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

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
test: $(STAMP) tools lint types check-imports  ## all checks and all tests
	@echo "== pytest"
	@mkdir -p build && rm -f $(NOT_RUN)
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(or $(PYTEST),-m "not alone")
	@$(if $(PYTEST),:,$(PY) -m pytest -m alone tests/recovery)
	@cat $(NOT_RUN) 2>/dev/null || true

tools:  ## Chromium and promtool for the tests, with apt as root; CI=1: fail where they cannot be had
	@bash tests/tools.sh

test-fast: $(STAMP)  ## unit, contract and property tests without a broker, for the minute between two edits
	@echo "== pytest, fast"
	@$(PY) -m pytest -n $(JOBS) --dist load --fast --hypothesis-profile=fast -q tests/unit tests/contract tests/properties $(PYTEST)

fuzz: $(STAMP)  ## the decoder against 250,000 messages and more: SEED=N repeats a run
	@echo "== fuzz"
	@$(PY) -m pytest tests/properties/test_decoder.py -q --hypothesis-profile=fuzz $(if $(SEED),--hypothesis-seed=$(SEED))

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

# SEED=N: that one again. QUICK=1: two minutes. ARGS="--seeds 20 --faults 'kill -9,hangs'": see --help.
chaos: $(STAMP)  ## faults on a real broker: SEED=N QUICK=1 SHARDS=4 WORKERS=3
	@$(PY) -m tests.chaos.run $(if $(SEED),--seed $(SEED)) $(if $(QUICK),--quick) \
	  $(if $(SHARDS),--shards $(SHARDS)) $(if $(WORKERS),--workers $(WORKERS)) $(ARGS)

soak: $(STAMP)  ## memory and lag over time: ARGS="--minutes 60 --rate 500"
	@$(PY) -m tests.load.soak $(ARGS)

overload: $(STAMP)  ## ten times what it can take: ARGS="--minutes 5 --factor 10"
	@$(PY) -m tests.load.overload $(ARGS)

scaling: $(STAMP)  ## what more shards and workers bring: ARGS="--cluster 2x4 --rate 400"
	@$(PY) -m tests.load.scaling $(ARGS)

# QUICK=1: under a minute. ARGS="--workload social --batch 1000 --profile", --exact, --growth, --hubs, --memory, --write: see --help.
bench: $(STAMP)  ## how fast it is, and how much faster than others: QUICK=1 ARGS="--write"
	@$(PY) -m tests.bench $(if $(QUICK),--quick) $(ARGS)

# QUICK=1: under a minute. ARGS="--minutes 10 --start 1000000 --part freshness --rate 2000 --write": see --help.
bench-e2e: $(STAMP)  ## the whole worker on the embedded Kafka, JSON in, scores out: QUICK=1 ARGS="--minutes 10"
	@$(PY) -m tests.bench.e2e $(if $(QUICK),--quick) $(ARGS)

# Where nothing is installed it takes any Python with torch, torch_geometric, numpy and numba.
bench-gpu:  ## the engine on the GPU against one core: ARGS="--quick --device cpu"
	@$(or $(wildcard $(PY)),$(PYTHON)) -m tests.bench.gpu $(ARGS)

docs: $(STAMP)  ## write the generated pages anew
	@$(PY) -m docs.generate --write

lock: | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)  ## compile requirements.lock anew
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links requirements.in --output-file requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links deploy/audit/requirements.in --output-file deploy/audit/requirements.lock

# Its tools have an environment of their own: nothing of them is installed with what runs.
$(AUDIT)/.installed: deploy/audit/requirements.lock | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)
	@[ -x $(AUDIT)/bin/python ] || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(AUDIT)
	@$(UV) pip sync --quiet --python $(AUDIT)/bin/python --require-hashes deploy/audit/requirements.lock
	@touch $@

audit: $(AUDIT)/.installed  ## known vulnerabilities in what is locked: UNREACHABLE=skip where nobody may be asked
	@$(AUDIT)/bin/python deploy/audit/audit.py $(if $(filter skip,$(UNREACHABLE)),--may-skip) \
	  requirements.lock deploy/audit/requirements.lock

sbom: $(AUDIT)/.installed  ## what is locked as CycloneDX JSON: build/sbom.json
	@PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
	  --of JSON --output-file build/sbom.json
	@$(AUDIT)/bin/python -c 'import json; found = json.load(open("build/sbom.json")); print("build/sbom.json:", \
	  found["bomFormat"], found["specVersion"] + ",", len(found["components"]), "components")'

clean:  ## remove .venv and what was built
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
