# Everything a developer does. Each target first makes .venv ready; when it is, that takes a second.
#
#   make demo    a real task is saved in mid-run and finishes later with the same result
#   make test    all tests, in three parts at once; PYTEST_ARGS="tests/unit -k runs" for some of them
#   make test-guests   on Linux 6.1, 6.12 and the newest, in emulated machines; GUEST_ARGS for options
#   make test-clouds   stores in each cloud's emulator, Azure's too, which is fetched for it
#   make bench   figures beside plain CRIU's, in the same run; BENCH_ARGS for options
#   make lint    ruff and mypy, as CI runs them;  make format  lets ruff mend what it can
#   make docs    the manual in docs/_build/html
#   make clean   removes what builds and tests leave;  make distclean  .venv too

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo test test-guests test-clouds bench lint format docs clean distclean

BIN := .venv/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=
GUEST_ARGS ?=

help:
	@sed -n 's/^#   make/make/p' Makefile

setup:
	@tools/setup

demo: setup
	@tools/demo

# A kernel feature that is missing is a failure here and not a skip: a green run has tried it all.
test: setup
	SNAPLIB_REQUIRE_KERNEL=1 $(BIN)/python -m tests $(PYTEST_ARGS)

# Its own tools beside those of setup: they are needed for nothing else.
test-guests: setup
	@tests/guests/prepare
	$(BIN)/python -m tests.guests $(GUEST_ARGS) test

# Azurite needs a newer Node.js than Debian has.
test-clouds: setup
	@tests/clouds/prepare
	$(BIN)/python -m pytest tests/unit/store/test_clouds.py tests/unit/store/test_remote.py $(PYTEST_ARGS)

bench:
	@tools/setup --benchmarks
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict snaplib

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs:
	@tools/setup --group docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf .venv
