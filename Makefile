# A machine with Python >= 3.11, pip and make is enough for `make demo` and `make test`: all other dependencies
# (uv, the libraries, Kafka, Java) are installed automatically.

SHELL := /bin/bash
PYTHON ?= python3
BOOT := build/uv
AUDIT := build/audit
SITE := build/site-tools
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=
PYTEST ?=
# Tests wait much of their time: one process more than cores, at most five. Each runs whole files, because shared fixtures are
# expensive to start.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n + 1 : 5)))
# Skipped tests with the missing tool, printed at the end; a missing tool fails the run if NEED_TOOLS is set.
NOT_RUN := build/not-run
test: export NOT_RUN := $(CURDIR)/$(NOT_RUN)
# uv must not install into an active environment of the caller.
unexport VIRTUAL_ENV
# uv from the path if there is one, else one installed in build/.
UV := $(or $(shell command -v uv 2>/dev/null),$(BOOT)/bin/uv)

.PHONY: help install demo test test-fast tools fuzz lint format types check-imports chaos soak overload scaling bench bench-e2e bench-opponent bench-gpu alerts chart image-root sandbox docs site lock audit sbom clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(STAMP)  ## create .venv from requirements.lock

$(BOOT)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Groundswell needs Python 3.11 or newer; choose one with: make PYTHON=python3.12"; exit 1; }
	@echo "installing uv in build/ (once)"
	@PIP_ROOT_USER_ACTION=ignore $(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --target $(BOOT) uv
	@test -x $@

# Depends on the lock and pyproject.toml: fast when neither changed.
$(STAMP): requirements.lock pyproject.toml | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)
	@echo "installing from requirements.lock (the first time this takes minutes: PyTorch is large)"
	@[ -x $(PY) ] || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	@$(UV) pip sync --python $(PY) --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## Kafka, a worker and simulated events on this machine: ARGS="--minutes 1 --json"
	@$(VENV)/bin/groundswell demo $(ARGS)

# Each step prints its name; the first failure stops the run. The kernels, which most tests need, are compiled on one core
# while mypy takes the other. The tests with a broker come first and fill the time together; short files come at the end.
test: $(STAMP) tools lint  ## all checks and all tests
	@$(PY) deploy/image/compile_kernels.py & kernels=$$!; $(MAKE) --no-print-directory types check-imports && wait $$kernels
	@echo "== pytest"
	@mkdir -p build && rm -f $(NOT_RUN)
	@$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(or $(PYTEST),-m "not alone")
	@$(if $(PYTEST),:,$(PY) -m pytest -m alone tests/recovery tests/chaos)
	@cat $(NOT_RUN) 2>/dev/null || true

tools:  ## install Chromium and promtool for the tests, with apt as root; NEED_TOOLS=1: fail if that is not possible
	@bash tests/tools.sh

test-fast: $(STAMP)  ## unit, contract and property tests without a broker, for runs between two edits
	@echo "== pytest, fast"
	@$(PY) -m pytest -n $(JOBS) --dist worksteal --fast --hypothesis-profile=fast -q tests/unit tests/contract tests/properties $(PYTEST)

fuzz: $(STAMP)  ## fuzz the decoder with at least 250,000 messages: SEED=N repeats a run
	@echo "== fuzz"
	@$(PY) -m pytest tests/properties/test_decoder.py -q --hypothesis-profile=fuzz $(if $(SEED),--hypothesis-seed=$(SEED))

lint: $(STAMP)  ## ruff: rules and format
	@echo "== ruff"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

format: $(STAMP)  ## fix and format with ruff
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

types: $(STAMP)  ## mypy --strict
	@echo "== mypy"
	@$(VENV)/bin/mypy

check-imports: $(STAMP)  ## import contracts between packages and rooms
	@echo "== import-linter"
	@$(VENV)/bin/lint-imports --no-logo

# SEED=N: repeat that seed. QUICK=1: two minutes. ARGS="--seeds 20 --faults 'kill -9,hangs'": see --help.
chaos: $(STAMP)  ## inject faults into workers on a real broker: SEED=N QUICK=1 SHARDS=4 WORKERS=3
	@$(PY) -m tests.chaos.run $(if $(SEED),--seed $(SEED)) $(if $(QUICK),--quick) \
	  $(if $(SHARDS),--shards $(SHARDS)) $(if $(WORKERS),--workers $(WORKERS)) $(ARGS)

soak: $(STAMP)  ## measure memory and lag over time: ARGS="--minutes 60 --rate 500"
	@$(PY) -m tests.load.soak $(ARGS)

overload: $(STAMP)  ## send ten times the sustainable load: ARGS="--minutes 5 --factor 10"
	@$(PY) -m tests.load.overload $(ARGS)

scaling: $(STAMP)  ## compare numbers of shards and workers: ARGS="--cluster 2x4 --rate 400"
	@$(PY) -m tests.load.scaling $(ARGS)

# QUICK=1: under a minute. ARGS="--workload social --batch 1000 --profile", --exact, --growth, --hubs, --memory, --against REF, --write: see --help.
bench: $(STAMP)  ## measure the engine against full and affected-only recomputation: QUICK=1 ARGS="--write"
	@$(PY) -m tests.bench $(if $(QUICK),--quick) $(ARGS)

# QUICK=1: under a minute. ARGS="--minutes 10 --start 1000000 --part freshness --rate 2000 --against REF --write": see --help.
bench-e2e: $(STAMP)  ## measure the whole worker on the embedded Kafka, JSON to scores: QUICK=1 ARGS="--minutes 10"
	@$(PY) -m tests.bench.e2e $(if $(QUICK),--quick) $(ARGS)

# Pathway is installed under build/ when this runs first. ARGS="--users 100000 --slice-s 20": see --help.
bench-opponent: $(STAMP)  ## measure the shard and Pathway on the same follow stream
	@$(PY) -m tests.bench.opponent $(ARGS)

# Without an installation it uses any Python with torch, torch_geometric, numpy and numba.
bench-gpu:  ## measure the engine on the GPU against one core: ARGS="--quick --device cpu"
	@$(or $(wildcard $(PY)),$(PYTHON)) -m tests.bench.gpu $(ARGS)

# Each alert of deploy/prometheus, fired by a fault on real processes. ARGS="--only bad_producer old_events": see --help.
alerts: $(STAMP)  ## fire every Prometheus alert by a real fault, print seconds until it fired and ended
	@$(PY) -m tests.deploy.fire_alerts $(ARGS)

chart: $(STAMP)  ## render the Helm chart and validate it for three versions of Kubernetes (compiles helm once; needs Go)
	@$(PY) -m tests.deploy.chart $(ARGS)

image-root: $(STAMP)  ## run the image's steps in a clean root folder and a worker in it, without Docker (root, debootstrap)
	@$(PY) -m tests.deploy.image_root $(ARGS)

sandbox: $(STAMP)  ## run a worker of that root folder with the limits of the image and of the systemd unit (root)
	@$(PY) -m tests.deploy.sandbox $(ARGS)

docs: $(STAMP)  ## write the generated pages
	@$(PY) -m docs.generate --write
	@$(PY) deploy/grafana/generate.py

lock: | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)  ## compile requirements.lock from requirements.in
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links requirements.in --output-file requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links deploy/audit/requirements.in --output-file deploy/audit/requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links deploy/site/requirements.in --output-file deploy/site/requirements.lock

# The audit tools have their own environment, separate from the run-time packages.
$(AUDIT)/.installed: deploy/audit/requirements.lock | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)
	@[ -x $(AUDIT)/bin/python ] || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(AUDIT)
	@$(UV) pip sync --quiet --python $(AUDIT)/bin/python --require-hashes deploy/audit/requirements.lock
	@touch $@

audit: $(AUDIT)/.installed  ## check the locked packages for known vulnerabilities: UNREACHABLE=skip: pass without a vulnerability service
	@$(AUDIT)/bin/python deploy/audit/audit.py $(if $(filter skip,$(UNREACHABLE)),--may-skip) \
	  requirements.lock deploy/audit/requirements.lock deploy/site/requirements.lock

sbom: $(AUDIT)/.installed  ## list the locked packages as CycloneDX JSON: build/sbom.json
	@PYTHONWARNINGS=ignore $(AUDIT)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
	  --of JSON --output-file build/sbom.json
	@$(AUDIT)/bin/python -c 'import json; found = json.load(open("build/sbom.json")); print("build/sbom.json:", \
	  found["bomFormat"], found["specVersion"] + ",", len(found["components"]), "components")'

# The tools of the site have their own environment, as those of the audit have.
$(SITE)/.installed: deploy/site/requirements.lock | $(if $(findstring $(BOOT),$(UV)),$(BOOT)/bin/uv)
	@[ -x $(SITE)/bin/python ] || $(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(SITE)
	@$(UV) pip sync --quiet --python $(SITE)/bin/python --require-hashes deploy/site/requirements.lock
	@touch $@

site: $(SITE)/.installed  ## build the documentation as a site: build/site
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/python -m mkdocs --quiet build --strict --config-file deploy/site/mkdocs.yml && echo build/site/index.html

clean:  ## remove .venv, build/ and caches
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
