# Everything a developer, CI and a curious user do with Tidegate; `make` alone lists it.
#
# Only plain Python and pip are needed: the machine's python3 (3.11 or newer) makes .venv, and the locked
# requirements are installed into it with their hashes checked. Nothing outside this folder is changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# A stranger's module path must not reach the virtual environment.
unexport PYTHONPATH PYTHONHOME

PYTHON ?= python3
UV ?= uv
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
CODE := $(wildcard src tests bench)
# In the order of collection, which begins with the stories: they take longest.
SCHEDULE := --dist loadgroup --no-loadscope-reorder
PARALLEL := -n $(WORKERS) $(SCHEDULE)
# Stories of faults and of the judge wait for real time to pass more than they compute.
WAITING := -n $$(($(WORKERS) + 1)) $(SCHEDULE)
# What `make check` runs: fast and without real processes.
QUICK := $(wildcard tests/unit tests/properties tests/meta)

.PHONY: help
help: ## list the targets
	@echo 'Tidegate: make demo shows it, make test proves it.'
	@echo
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/\1\t\2/' | expand -t 10 | sed 's/^/  make /'

.PHONY: setup
setup: $(STAMP) ## make .venv and install the locked dependencies and Tidegate itself

# The checks come first and in this order, so that each failure names the one thing to do.
$(STAMP): requirements/dev.txt pyproject.toml src/tidegate/__init__.py
	@command -v $(PYTHON) >/dev/null || { echo 'setup: no $(PYTHON) on this machine. Debian 12, Ubuntu: apt-get install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $$($(PYTHON) --version) is too old: Tidegate needs Python 3.11 or newer. If you have one under another name: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "setup: $$($(PYTHON) --version) cannot make a virtual environment: python3-venv is missing. Debian 12, Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "setup: making $(VENV) with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "setup: installing $$(grep -c == requirements/dev.txt) locked packages of requirements/dev.txt into $(VENV), each checked against its hash"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	@echo 'setup: installing tidegate itself (editable: it follows src/)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@
	@echo "setup: done: $$($(BIN)/python -c 'import tidegate; print("tidegate", tidegate.__version__)'), command: $(BIN)/tide"

.PHONY: demo
demo: setup ## a good release, then bad ones that go back by themselves, on this machine
	$(BIN)/tide demo

.PHONY: test
test: setup lint type ## everything: lint, types, contracts, all tests with coverage, the ratchets
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest $(PARALLEL) -m 'not serial and not uncounted' --cov --cov-report=
	$(BIN)/python -m pytest -m 'serial and not uncounted' --cov --cov-append --cov-report=term
	@$(BIN)/python -m tests.meta.coverage_ratchet
	$(BIN)/python -m pytest $(WAITING) -m 'uncounted and not serial'
	$(BIN)/python -m pytest -m 'uncounted and serial'

.PHONY: check
check: setup lint type ## under a minute: lint, types, contracts and the fast tests
	$(BIN)/python -m pytest $(PARALLEL) -m 'not serial and not slow and not real' $(QUICK)

.PHONY: fmt
fmt: setup ## format the code and apply the safe fixes
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

.PHONY: lint
lint: setup ## ruff, formatting, import contracts
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports --no-logo

.PHONY: type
type: setup ## mypy --strict
	$(BIN)/mypy $(CODE)

.PHONY: sim
sim: setup ## simulate rollouts; SEEDS=200 many, SEED=n replays one, PROFILE=name turns some faults up
	$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)) $(if $(PROFILE),--profile $(PROFILE))

.PHONY: bench
bench: setup ## measure, and print the tables of the documentation
	$(BIN)/python -m bench

.PHONY: docs
docs: setup ## check that the documentation's links lead somewhere
	$(BIN)/python -m pytest tests/meta/test_docs.py

.PHONY: build
build: setup ## make the wheel and the source archive in dist/
	$(BIN)/python -m hatchling build

.PHONY: lock
lock: ## pin the dependencies of pyproject.toml and requirements/dev.in again (needs uv)
	@command -v $(UV) >/dev/null || { echo 'lock: uv is missing: python3 -m pip install uv, or make lock UV=/where/it/is' >&2; exit 1; }
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url pyproject.toml -o requirements/base.txt
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url -c requirements/base.txt --extra postgres pyproject.toml requirements/dev.in -o requirements/dev.txt

.PHONY: ci
ci: ## what the continuous integration runs
	bash .ci/run
