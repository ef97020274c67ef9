# `make run` and `make test` set up whatever is missing; both are safe to run again.
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-annotate --custom-compile-command 'make lock'
SHELL_FILES := .ci/chromium .ci/common .ci/guest-deps .ci/incus .ci/nix .ci/run .ci/venv \
	nix/guest/init nix/guest/pikaci-deadline nix/guest/pikaci-incus-run nix/guest/pikaci-ready
# More than a small machine has cores: tests on the real Incus wait for most of their time.
WORKERS ?= 4
# Where images of containers set it, every process of the tests would compile all of the code anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run setup venv nix browser test lint format docs lock clean

help:  ## Say what there is
	@sed -nE 's/^([a-z]+):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: setup  ## Run this project's own jobs in real guests
	@$(BIN)/pikaci run

setup: venv  ## Set up Python, Incus and the guest image, where they are missing
	@.ci/incus
	@$(BIN)/pikaci setup
	@.ci/guest-deps

venv:
	@.ci/venv

browser:
	@.ci/chromium

ifeq ($(PIKACI_TEST_WITHOUT_INCUS),1)
test: venv nix browser
	@echo 'PIKACI_TEST_WITHOUT_INCUS=1: the tests on a real Incus are LEFT OUT'
else
test: setup nix browser  ## Run all tests, those on a real Incus included (WORKERS=1: one at a time)
endif
	@$(BIN)/pytest --cov --numprocesses $(WORKERS) --dist loadgroup

nix:
	@.ci/nix

lint: venv  ## Look at style, types, shell files, imports and generated docs
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

lock: venv  ## Lock the Python packages anew (ARGS=--upgrade: in newer versions)
	@$(BIN)/pip install -qq uv
	@$(COMPILE) $(ARGS) --group dev --all-extras pyproject.toml --output-file .ci/requirements.lock >/dev/null
	@$(COMPILE) --group guest --constraint .ci/requirements.lock --output-file .ci/guest.lock >/dev/null

clean:  ## Remove what set-up and tests left in this folder
	rm -rf .venv build *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
