# `make` alone says what there is. Every target does first what it needs, and only what is missing.

SHELL_FILES = .ci/common .ci/guest-deps .ci/incus .ci/lock .ci/run .ci/venv \
	nix/guest/init nix/guest/pikaci-incus-run

.PHONY: help run setup test lint fmt docs lock clean venv

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: setup ## set up what is missing, then run this project's own jobs in real guests
	.venv/bin/pikaci run

setup: venv ## .venv, a running Incus, and in it our project, pool, profile and image
	@.ci/incus
	@.venv/bin/pikaci setup
	@.ci/guest-deps

ifeq ($(PIKACI_TEST_WITHOUT_INCUS),1)
test: venv
	@echo "PIKACI_TEST_WITHOUT_INCUS=1: NOTHING is tested on a real Incus"
else
test: setup ## all tests, those on a real Incus included (PIKACI_TEST_WITHOUT_INCUS=1: without)
endif
	.venv/bin/pytest --cov

lint: venv ## format, types, imports, shell, and whether docs/ is what its script makes
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/shellcheck $(SHELL_FILES)
	.venv/bin/python docs/generate.py --check

fmt: venv ## format the Python code
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

docs: venv ## write anew what docs/ holds of the code
	.venv/bin/python docs/generate.py

lock: venv ## pin the dependencies of pyproject.toml anew (ARGS=--upgrade: newer versions)
	.ci/lock $(ARGS)

clean: ## remove what was made here; leaves Incus, and the state of runs
	rm -rf .venv build *.egg-info .coverage* .hypothesis .*_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

venv:
	@.ci/venv
