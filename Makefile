# `make run` and `make test` set up whatever is missing; both are safe to run again.
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate
SHELL_FILES := .ci/run .ci/setup nix/guest/init nix/guest/pikaci-incus-run

.PHONY: help run setup test lint format docs lock clean

help:  ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: setup  ## Run this project's own jobs in real guests
	@$(BIN)/pikaci run

setup:  ## Set up Python, Incus and the guest image, where they are missing
	@.ci/setup

ifeq ($(PIKACI_TEST_WITHOUT_INCUS),1)
test: venv  ## Run all tests, those on the real Incus included
	@echo 'PIKACI_TEST_WITHOUT_INCUS=1: the tests on a real Incus are LEFT OUT'
else
test: setup
endif
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: venv  ## Look at types, style, shell files, imports and generated docs
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/shellcheck $(SHELL_FILES)
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python docs/generate.py --check

format: venv  ## Put the code into its form
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

docs: venv  ## Make the generated parts of the docs anew
	@$(BIN)/python docs/generate.py

lock: venv  ## Lock the Python packages anew, with hashes and without addresses
	@$(BIN)/pip install --quiet uv
	@$(COMPILE) --group dev pyproject.toml --output-file .ci/requirements.lock
	@$(COMPILE) --group guest --output-file .ci/guest.lock

clean:  ## Remove what set-up and tests left in this folder
	rm -rf .venv build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: venv
venv:
	@.ci/setup venv
