# `make drive` and `make test` need nothing but Python 3.11 to 3.13 and make: the first one to run makes .venv.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The first interpreter that fits; `make PYTHON=/path/to/python` overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help drive test check bench format install clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

drive: $(INSTALLED)  ## one closed-loop episode in simulation
	$(BIN)/automedon drive --record runs --video runs/drive.mp4

# Worker processes, at most four since each takes some gigabytes. Threads that wait must not spin on a core that another needs.
test: $(INSTALLED)  ## the whole test suite
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: $(INSTALLED)  ## formatting, lint, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_project_imports.py

bench: $(INSTALLED)  ## the speed of the sensors on this machine
	$(BIN)/automedon bench sensors

format: $(INSTALLED)  ## rewrite the sources as `make check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(INSTALLED)  ## only make .venv

# Constraints keep a fresh machine on versions that passed the tests; pyproject.toml holds the ranges.
$(INSTALLED): pyproject.toml tested-versions.txt
	@test -n "$(PYTHON)" || { echo "automedon needs Python 3.11, 3.12 or 3.13, found none: install one, or run make PYTHON=/path/to/python" >&2; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c tested-versions.txt -e '.[test]'
	@touch $@

clean:  ## remove caches and build products (not .venv, not runs/)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
