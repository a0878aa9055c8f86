# `make demo` and `make test` set up what they need on a fresh machine, then run. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin

demo: .venv/.demo  ## the page, playing the bundled recording with the bundled model
	$(BIN)/velora demo

test: .venv/.test  ## the test suite
	$(BIN)/python -m pytest

lint: .venv/.dev  ## ruff and mypy over everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: .venv/.fuzz  ## ten thousand hostile files of each format; hours
	$(BIN)/python -m pytest tests/trust/fuzz --nightly --reliability fuzz

faults: .venv/.test  ## networks, cameras, pages, disks and attacks
	$(BIN)/python -m pytest tests/trust/faults --nightly --reliability faults

soak: .venv/.test  ## an hour of live input
	$(BIN)/python -m pytest tests/trust/soak --nightly --reliability soak

audit: .venv/.dev  ## known weaknesses of the pinned libraries; asks a public service for each
	$(BIN)/python docs/audit.py

picture: .venv/.test  ## the pictures of the page in the README; screens/ has every screen
	$(BIN)/python docs/make_picture.py
	$(BIN)/python docs/make_picture.py --all screens

recordings/cards.aedat4: .venv/.demo  ## the bundled recording
	$(BIN)/velora simulate cards --out $@ --seconds 14 --seed 7 --force

clean:  ## forget the virtual environment
	rm -rf .venv

help:
	@sed -n 's/^\([a-z/.0-9]*\):.*## /  make \1: /p' Makefile

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing into .venv; on Linux this downloads about 2.8 GB the first time, most of it torch."
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

.venv/.test: .venv/.demo
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	@touch $@

.venv/.fuzz: .venv/.test
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz]'
	@touch $@

.venv/.dev: .venv/.test
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: demo test lint fuzz faults soak audit picture clean help
