# `make run` and `make test` set up what is missing; both can be repeated safely.
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-annotate --custom-compile-command 'make lock'
SHELL_FILES := .ci/chromium .ci/common .ci/guest-deps .ci/incus .ci/nix .ci/run .ci/venv \
	nix/guest/init nix/guest/pikaci-deadline nix/guest/pikaci-incus-run nix/guest/pikaci-ready
# May exceed the number of cores: tests on the real Incus mostly wait.
WORKERS ?= 4
# Some container images set it; then every test process would compile all code again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run setup venv nix browser test test-projects coverage lint format docs lock clean

help:  ## List the targets
	@sed -nE 's/^([a-z-]+):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

run: setup  ## Run this project's own jobs in real guests
	@$(BIN)/pikaci run

setup: venv  ## Set up Python, Incus and the guest image, if they are missing
	@.ci/incus
	@$(BIN)/pikaci setup
	@.ci/guest-deps

venv:
	@.ci/venv

browser:
	@.ci/chromium

ifeq ($(PIKACI_TEST_WITHOUT_INCUS),1)
test: venv nix browser
	@echo 'PIKACI_TEST_WITHOUT_INCUS=1: the tests on a real Incus are SKIPPED'
else
test: setup nix browser  ## Run all tests, including those on a real Incus (WORKERS=1: one at a time)
endif
	@$(BIN)/pytest $(MEASURE) --numprocesses $(WORKERS) --dist loadgroup

# Apart from `test`: no check depends on it, and the tests in Python take up to 40 % longer with it.
coverage: MEASURE := --cov
coverage: test  ## Run all tests, and list the lines and branches that none of them reaches

test-projects: setup  ## Run the tests of other people's projects in guests, and compare
	@$(BIN)/pytest tests/projects -m '' -o faulthandler_timeout=0 --numprocesses 2

nix:
	@.ci/nix

lint: venv  ## Check style, types, shell files, imports and generated docs
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy
	@$(BIN)/shellcheck $(SHELL_FILES)
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python docs/generate.py --check

format: venv  ## Format the code
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

docs: venv  ## Regenerate the generated parts of the docs
	@$(BIN)/python docs/generate.py

lock: venv  ## Lock the Python packages (ARGS=--upgrade: in newer versions)
	@$(BIN)/pip install -qq uv
	@$(COMPILE) $(ARGS) --group dev --all-extras pyproject.toml --output-file .ci/requirements.lock >/dev/null
	@$(COMPILE) --group guest --constraint .ci/requirements.lock --output-file .ci/guest.lock >/dev/null

clean:  ## Remove what setup and tests left in this directory
	rm -rf .venv build *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
