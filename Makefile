# `make run` and `make test` set up what is missing; both can be repeated safely.
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-annotate --custom-compile-command 'make lock'
SHELL_FILES := docs/examples/buildkite-command docs/examples/cron-nightly docs/examples/git-pre-push \
	docs/examples/gitlab-executor .ci/bench-peers .ci/chromium .ci/common .ci/guest-deps .ci/incus .ci/nix \
	.ci/postgresql .ci/run .ci/sshd .ci/venv .ci/vm \
	nix/guest/init nix/guest/initrd-init nix/guest/pikaci-deadline nix/guest/pikaci-incus-run nix/guest/pikaci-ready
# May exceed the number of cores: tests on the real Incus mostly wait.
WORKERS ?= 4
# Some container images set it; then every test process would compile all code again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run setup setup-vm venv nix browser sshd vm-tools test-tools test test-kill test-hosts \
	test-hostile test-projects test-vm test-examples scale bench bench-peers bench-check coverage lint format \
	docs lock clean

help:  ## List the targets
	@sed -nE 's/^([a-z-]+):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

run: setup  ## Run this project's own jobs in real guests
	@$(BIN)/pikaci run

setup: venv  ## Set up Python, Incus and the guest image, if they are missing
	@.ci/incus
	@$(BIN)/pikaci setup
	@.ci/guest-deps

setup-vm: setup  ## Set up what virtual machines need, and their guest image
	@.ci/vm
	@$(BIN)/pikaci setup --vm

venv:
	@.ci/venv

browser:
	@.ci/chromium

ifeq ($(PIKACI_TEST_WITHOUT_INCUS),1)
test: venv test-tools
	@echo 'PIKACI_TEST_WITHOUT_INCUS=1: the tests on a real Incus are SKIPPED'
else
test: setup test-tools  ## Run all tests, including those on a real Incus (WORKERS=1: one at a time)
endif
	@$(BIN)/pytest $(MEASURE) --numprocesses $(WORKERS) --dist loadgroup

# Apart from `test`: no check depends on it, and the tests in Python take up to 40 % longer with it.
coverage: MEASURE := --cov
coverage: test  ## Run all tests, and list the lines and branches that none of them reaches

# `make test` tries a part of them, the same every time.
test-kill: setup  ## Kill pikaci at every fault point, alone and with its process group
	@$(BIN)/pytest tests/kill -m 'not hosts' --every-point -o faulthandler_timeout=0 \
		--numprocesses $(WORKERS) --dist loadgroup

test-hosts: setup sshd  ## Run the contract's tests on other hosts, cut connections, and try a cluster whose members die
	@$(BIN)/pytest tests/hosts tests/kill -m hosts -o faulthandler_timeout=0

test-projects: setup  ## Run the tests of other people's projects in guests, and compare
	@$(BIN)/pytest tests/projects -m '' -o faulthandler_timeout=0 --numprocesses 2

build/%/installed: .ci/%.lock
	@rm -rf $(@D) && $(BIN)/python -m venv $(@D)
	@$(@D)/bin/pip install --quiet --require-hashes --requirement $<
	@touch $@

test-examples: setup build/buildbot/installed build/procrastinate/installed build/dagster/installed  ## Run the tests of examples with a Buildbot, a Dagster and a queue in PostgreSQL
	@.ci/postgresql
	@$(BIN)/pytest tests/integration -m examples

test-hostile: setup  ## Run what takes minutes of the tests with hostile jobs
	@$(BIN)/pytest tests/integration -m hostile -o faulthandler_timeout=0

# Rows that passed for this tree and this image are left out: see docs/vm.md.
test-vm: setup-vm  ## Run the tests that boot virtual machines (ROWS='log or timeout': some of them)
	@$(BIN)/pytest tests/vm -m vm -k '$(ROWS)' -rs -o faulthandler_timeout=0

scale: venv  ## Drive 100,000 simulated jobs on 100 members, and print figures (about an hour)
	@$(BIN)/python -m tests.benchmarks.scale --jobs 100000 --members 100 --open 10000

bench: setup  ## Run one job by pikaci and by plain commands in turns, for docs/benchmarks (10 minutes; ROUNDS=3: fewer)
	@$(BIN)/python -m tests.benchmarks.bench $(ROUNDS)

bench-peers: venv  ## Install, below build, what `make bench` compares pikaci with
	@.ci/bench-peers

bench-check: venv  ## Compare two results of `make bench` (OLD=file NEW=file): what got worse
	@$(BIN)/python -m tests.benchmarks.bench check $(OLD) $(NEW)

nix:
	@.ci/nix

sshd:
	@.ci/sshd

vm-tools:
	@.ci/vm build

# Debian's packages for tests, each with a script of its own.
test-tools: nix browser sshd vm-tools

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
	@$(COMPILE) $(ARGS) --group buildbot --output-file .ci/buildbot.lock >/dev/null
	@$(COMPILE) --group procrastinate --extra portal --constraint .ci/requirements.lock pyproject.toml \
		--output-file .ci/procrastinate.lock >/dev/null
	@$(COMPILE) --group dagster --extra portal --constraint .ci/requirements.lock pyproject.toml \
		--output-file .ci/dagster.lock >/dev/null
	@$(COMPILE) $(ARGS) --group peers --output-file .ci/peers.lock >/dev/null
	@$(COMPILE) --group guest --constraint .ci/requirements.lock --output-file .ci/guest.lock >/dev/null

clean:  ## Remove what setup and tests left in this directory
	rm -rf .venv build *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
