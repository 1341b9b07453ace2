# The two commands: make quickstart, make test. Everything they need goes into .venv and .cache of this folder,
# and into the cache of binaries (~/.cache/turbokube unless TURBOKUBE_CACHE says otherwise).
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all lint
.DELETE_ON_ERROR:

PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done),python3)
STAGES ?=

run := PATH="$(CURDIR)/.venv/bin:$$PATH"

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

quickstart: .venv/installed ## a control plane on this machine: loaded, measured, reported, gone
	@$(run) ansible-playbook playbooks/quickstart.yml

test: .venv/installed-test ## every test that a commit must pass; STAGES="ruff mypy" for some of them
	@$(run) python tests/stages.py $(STAGES)

test-all: .venv/installed-test ## those that take longer, too
	@$(run) python tests/stages.py --all $(STAGES)

lint: .venv/installed-test ## what needs no control plane and no minutes
	@$(run) python tests/stages.py ruff format mypy ansible-lint changelog

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "TurboKube needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): install one, or name it with make PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make a venv, since ensurepip is missing: install your distribution's package python3-venv (apt install python3-venv)." >&2; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/installed-test: .venv/installed requirements-test.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	@touch $@
