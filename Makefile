# make demo   set everything up and open the sample project in napari
# make test   set everything up and run every check
# Both make ./.venv once; it is made again when pyproject.toml or constraints.txt change.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test check lint types imports pytest clean help

VENV := .venv
BIN := $(VENV)/bin
DISPLAY_FOUND := $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s)))
HEADLESS := $(if $(DISPLAY_FOUND),,--headless)
PYTEST_ARGS ?=

help:
	@sed -n '1,3s/^# //p' Makefile

demo: $(VENV)/.installed
	$(BIN)/emtransfer demo $(HEADLESS)

test: $(VENV)/.installed-dev lint types imports pytest

$(BIN)/pip:
	python="$$(.ci/find-python)"; PYTHON="$$python" .ci/system-libraries; "$$python" -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[all,dev]'
	touch $@ $(VENV)/.installed

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy napari_emtransfer

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

# On a Linux without Xvfb the tests draw off screen; the others find their own way.
pytest: $(VENV)/.installed-dev | lint types imports
	if [ "$$(uname -s)" = Linux ] && ! command -v Xvfb >/dev/null; then export QT_QPA_PLATFORM=offscreen; echo "No Xvfb: drawing off screen."; fi; \
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types imports

clean:
	rm -rf $(VENV) build dist demo-out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
