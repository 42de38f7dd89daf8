# make demo [DATASET=dir]   train, segment and evaluate: on a generated sample, or on your own data
# make test                 style, types and tests
# make venv                 only set up .venv
# make clean                remove all that these made, .venv included
# PYTHON=... chooses the interpreter; it must be Python 3.10 to 3.13.

# The first one that runs and has the right version: a name on the PATH alone proves neither.
IS_SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$name -c '$(IS_SUPPORTED)' 2>/dev/null && echo $$name && break; done)
PIP_INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test venv clean

demo: venv
	.venv/bin/python demo/run.py $(if $(DATASET),--dataset "$(DATASET)")

test: .venv/.development
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest

venv: .venv/.runtime

# The stamp files are younger than the requirements exactly when these are installed.
.venv/.runtime: requirements.txt
	$(if $(PYTHON),,$(error No Python 3.10 to 3.13 found; give one as PYTHON=path))
	@echo "Setting up .venv with $(PYTHON); the first time takes some minutes."
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

.venv/.development: requirements-dev.txt .venv/.runtime
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis demo/output demo/report.html demo/metrics.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
