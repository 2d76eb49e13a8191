# Everything a person does with this project. `make` alone lists it.
#
#   PORT, VAR, HOST   where the server listens and keeps its data; two of them run side by side:  make up PORT=8081 VAR=var2
#
# Needs python3 (3.11 or newer) with venv, and make. What else it needs comes into .venv, pinned and checked by hash.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PORT ?=
VAR ?=
HOST ?=

# Names on the command line or in the environment reach the programs as settings; empty ones leave the default
ifneq ($(PORT),)
export REDFLAG_PORT := $(PORT)
endif
ifneq ($(VAR),)
export REDFLAG_VAR := $(VAR)
endif
ifneq ($(HOST),)
export REDFLAG_HOST := $(HOST)
endif

# Where it is set every process would compile the sources anew: half a second each time, and the tests start hundreds
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
LOCKS := requirements/runtime.txt requirements/test.txt requirements/node.txt package-lock.json
# The stamps carry the folder in their names: the scripts of a .venv work where they were made, and nowhere else
PLACE := $(shell printf %s "$(CURDIR)" | cksum | cut -d ' ' -f 1)
RUNTIME := .venv/.runtime-$(PLACE)
TEST := .venv/.test-$(PLACE)
# The dashboard's files; a change of what they are made from makes them anew
DASHBOARD := src/redflag/web/dashboard
ASSETS := $(DASHBOARD)/built/manifest.json
LOCK_COMMAND := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
SEED := ../shared/accept/seed.sh

.PHONY: help up down status logs test check accept fault bench screenshots wheel lock clean venv assets

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "  PORT=8081 VAR=var2 HOST=0.0.0.0 go with up, down, status and logs"

up: $(RUNTIME) $(ASSETS) ## start the server, its database and an agent for this host; safe to run again
	@REDFLAG_CLI=$(BIN)/redflag $(BIN)/redflag up

down: ## stop what `make up` started
	@[ -x $(BIN)/redflag ] || { echo "Nothing was ever started here: there is no .venv."; exit 0; }; $(BIN)/redflag down

status: ## show in short what runs
	@[ -x $(BIN)/redflag ] || { echo "Nothing was ever started here: run make up."; exit 7; }; $(BIN)/redflag status

logs: ## follow the logs of server, agent and database (Ctrl-C ends it)
	@cd "$${REDFLAG_VAR:-var}" 2>/dev/null || { echo "There is no data folder $${REDFLAG_VAR:-var}: run make up." >&2; exit 3; }; \
	exec tail -n 40 -F log/server.log log/agent.log database/log

test: $(TEST) $(ASSETS) ## run the whole test suite
	@$(BIN)/python -m pytest -n auto

check: $(TEST) $(ASSETS) ## what CI runs: format, lint, types, floors, tests
	@echo "ruff format"; $(BIN)/ruff format --check --quiet . || { echo "Not formatted as it should be: run $(BIN)/ruff format ." >&2; exit 1; }
	@echo "ruff check";  $(BIN)/ruff check --quiet .
	@echo "mypy";        $(BIN)/mypy
	@echo "lint-imports"; out=$$($(BIN)/lint-imports 2>&1) || { echo "$$out"; exit 1; }
	@echo "pytest";      $(BIN)/python -m pytest -n auto

accept: $(RUNTIME) $(ASSETS) ## run the seed's acceptance test against a server of its own
	@.ci/accept $(SEED)

fault: $(TEST) $(ASSETS) ## kill processes and the network on purpose (long)
	@REDFLAG_LONG=1 $(BIN)/python -m pytest -n auto -m fault tests/fault

bench: $(TEST) $(ASSETS) ## measure every goal on a database of its own (QUICK=1: a short version)
	@QUICK=$(QUICK) $(BIN)/python tests/bench/run.py $(if $(ONLY),$(addprefix --only ,$(ONLY)))

screenshots: $(TEST) $(ASSETS) ## take a picture of every page, light and dark, on a phone and a screen, into docs/images
	@$(BIN)/python tests/browser/screenshots.py

wheel: $(TEST) $(ASSETS) ## build a wheel with the dashboard's files in it, into dist
	@$(BIN)/python -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

assets: $(RUNTIME) ## build the dashboard's files anew
	@.ci/assets

lock: $(TEST) ## pin every dependency anew, in requirements/
	@echo "Resolving ..."
	@$(LOCK_COMMAND) --upgrade pyproject.toml requirements/build.in -o requirements/runtime.txt
	@$(LOCK_COMMAND) --upgrade --extra test -c requirements/runtime.txt pyproject.toml requirements/build.in -o requirements/test.txt
	@$(LOCK_COMMAND) --upgrade requirements/node.in -o requirements/node.txt
	@npm install --package-lock-only --no-audit --no-fund --ignore-scripts --loglevel=error
	@node -e 'const f="package-lock.json",fs=require("fs"),l=JSON.parse(fs.readFileSync(f));for(const p of Object.values(l.packages)){delete p.funding;delete p.resolved}fs.writeFileSync(f,JSON.stringify(l,null,2)+"\n")'
	@if grep -nE '://|^ *(-i|--index-url|--extra-index-url|--find-links)' $(LOCKS); then echo "A lock file names an address." >&2; exit 1; fi
	@echo "Pinned. make check installs and tests it."

clean: ## remove what was built (.venv, caches); never the data folder
	@if [ -x $(BIN)/redflag ] && $(BIN)/redflag status >/dev/null 2>&1; then echo "RedFlag runs from here: make down first." >&2; exit 5; fi
	@rm -rf .venv node_modules $(DASHBOARD)/built build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

venv: $(TEST)

$(RUNTIME): requirements/runtime.txt pyproject.toml
	@.ci/venv "$(PYTHON)" requirements/runtime.txt
	@touch $@

$(ASSETS): package-lock.json $(shell find $(DASHBOARD)/frontend $(DASHBOARD)/templates -type f) | $(RUNTIME)
	@.ci/assets

$(TEST): requirements/test.txt pyproject.toml $(RUNTIME)
	@.ci/venv "$(PYTHON)" requirements/test.txt
	@touch $@
