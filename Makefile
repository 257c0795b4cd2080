# Needs make and Python 3.11 or newer; everything else is put into .venv from requirements/dev.txt.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

LEVEL ?= quick
SEED ?=
MINUTES ?= 8
export LEVEL

BIN := .venv/bin
PINS := .venv/.pins
READY := .venv/.ready
PEERS := .venv/.peers
BENCH := $(if $(wildcard bench/*.py),bench)
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal
MEASURED := tests/core tests/session tests/storage
SPHINX := $(BIN)/python -m sphinx -q -W --keep-going -b html -d build/doctrees docs build/docs
say = @printf '%-9s %s\n'

.PHONY: help
help:
	@echo 'make demo     three nodes on this machine, and what happens when one dies'
	@echo 'make test     the tests; LEVEL=ci make test: all of them, with coverage'
	@echo 'make check    format, lint, types, layers and docs; changes nothing'
	@echo 'make fix      mends what of that can be mended'
	@echo 'make bench    figures, beside their peers and the floor'
	@echo 'make simulate random runs for MINUTES=8, with seeds of SEED= or of the commit and the time'
	@echo 'make mutants  how many random runs it takes to catch each planted bug'
	@echo 'make docs     the pages, into build/docs'
	@echo 'make pins     requirements/*.txt anew from requirements/*.in'
	@echo 'make clean    removes .venv, build and caches'

# -- the environment -------------------------------------------------------------------------------

$(PINS): requirements/dev.txt tools/setup.sh
	@tools/setup.sh python
	@touch $@

$(READY): $(PINS) pyproject.toml
	@tools/setup.sh project
	@touch $@

$(PEERS): $(READY) requirements/bench.txt
	@tools/setup.sh bench
	@touch $@

.PHONY: setup
setup: $(READY)

# -- what it is for --------------------------------------------------------------------------------

.PHONY: demo
demo: $(READY)
	@$(BIN)/totora demo

.PHONY: test
test: $(READY)
	$(say) test 'pytest, LEVEL=$(LEVEL)'
	@$(PYTEST)
ifeq ($(LEVEL),ci)
	$(say) coverage 'core 100 %, session and storage 95 %'
	@mkdir -p build
	@LEVEL=quick $(PYTEST) -p no:totora --cov --cov-report=json:build/coverage.json $(MEASURED)
	@$(BIN)/python tools/coverage_bounds.py build/coverage.json
endif

.PHONY: bench
bench: $(PEERS)
	@$(BIN)/python -m bench

.PHONY: mutants
mutants: $(READY)
	@$(BIN)/python -m tests.mutants --jobs 2

.PHONY: simulate
simulate: $(READY)
	@tools/simulate.sh '$(SEED)' '$(MINUTES)'

.PHONY: docs
docs: $(READY)
	$(say) docs 'sphinx, into build/docs'
	@$(SPHINX)

# -- checks: `make -k check` goes on after the first failure ---------------------------------------

.PHONY: check check-format check-lint check-layers check-mypy check-pyright
check: check-format check-lint check-layers check-mypy check-pyright docs

check-format: $(READY)
	$(say) format 'ruff format --check'
	@$(BIN)/ruff format --quiet --check . || { echo "run 'make fix'"; exit 1; }

check-lint: $(READY)
	$(say) lint 'ruff check'
	@$(BIN)/ruff check --quiet .

check-layers: $(READY)
	$(say) layers 'lint-imports'
	@mkdir -p build
	@$(BIN)/lint-imports --no-cache >build/layers.txt 2>&1 || { cat build/layers.txt; exit 1; }

check-mypy: $(READY)
	$(say) types 'mypy --strict'
	@$(BIN)/mypy --strict --no-error-summary src tests tools $(BENCH)

check-pyright: $(READY)
	$(say) types 'basedpyright'
	@mkdir -p build
	@$(BIN)/basedpyright >build/pyright.txt 2>&1 || { cat build/pyright.txt; exit 1; }

.PHONY: fix
fix: $(READY)
	$(say) fix 'ruff check --fix'
	@$(BIN)/ruff check --quiet --fix --exit-zero .
	$(say) fix 'ruff format'
	@$(BIN)/ruff format --quiet .

# -- housekeeping ----------------------------------------------------------------------------------

.PHONY: pins
pins:
	$(say) pins 'requirements/*.txt'
	@tools/pins.sh

.PHONY: clean
clean:
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
