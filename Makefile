# The commands of this project; `make` alone lists them. Each sets up what it
# needs, and none needs an activated environment.

# Interpreter that .venv is made with: `make setup PYTHON=python3.12`.
PYTHON ?= python3
# "oldest" takes the lowest versions that requirements.txt allows, on Python 3.10
# to 3.12, "locked" the files that requirements.lock lists by their hashes, each
# in an environment of its own: `make test DEPENDENCIES=oldest`.
DEPENDENCIES ?= newest
# Processes that run the tests: 0 runs them in pytest's own.
PYTEST_WORKERS ?= 2
# More arguments for pytest: `make test PYTEST_ARGS="-k decoder -x"`.
PYTEST_ARGS ?=

ifeq ($(DEPENDENCIES),oldest)
VENV := .venv-oldest
PACKAGES := -r requirements.txt -r requirements-dev.txt -c $(VENV)/oldest.txt
else ifeq ($(DEPENDENCIES),newest)
VENV := .venv
PACKAGES := -r requirements.txt -r requirements-dev.txt
else ifeq ($(DEPENDENCIES),locked)
VENV := .venv-locked
LOCK := requirements.lock
PACKAGES := --require-hashes -r $(LOCK)
else
$(error DEPENDENCIES=$(DEPENDENCIES): must be newest, oldest or locked)
endif
VENV_PYTHON := $(VENV)/bin/python
# All tests of a file run in one process, which makes its fixtures once.
PYTEST := $(VENV_PYTHON) -m pytest -n $(PYTEST_WORKERS) --dist loadfile
# Written last: as long as it is missing, the set-up is not finished.
SETUP_DONE := $(VENV)/.setup-done

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup test test-all test-faults golden lint fix lock audit demo \
  notebook lab docs gpu-check clean distclean FORCE

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' \
	  Makefile

setup: $(SETUP_DONE)  ## Make .venv and install the project with its tools

# --- Set-up -------------------------------------------------------------------

# Fails, with the remedy, where an interpreter cannot make the environment. It
# must run on any Python 3.
define CHECK_PYTHON
import sys
name, version = sys.argv[1], sys.version_info[:3]
if not (3, 10) <= version[:2] <= (3, 13):
  sys.exit(
      "%s is Python %d.%d.%d, but this project needs Python 3.10 to 3.13.\n"
      "Name another interpreter: make setup PYTHON=python3.12"
      % ((name,) + version))
try:
  import ensurepip, venv
except ImportError:
  sys.exit(
      "%s cannot make virtual environments: its module venv or ensurepip is "
      "missing.\nInstall it (Debian, Ubuntu: apt install python3-venv), or name "
      "another interpreter: make setup PYTHON=python3.12" % name)
endef
export CHECK_PYTHON

# Fails where .venv has no pip, or is of another Python than argument 1, if any.
define CHECK_VENV
import sys
import pip
version = "%d.%d" % sys.version_info[:2]
sys.exit(len(sys.argv) > 1 and sys.argv[1] != version)
endef
export CHECK_VENV

# An interpreter that was asked for, rather than the default, is kept to: a .venv
# of another version is made anew.
ifneq ($(origin PYTHON),file)
minor_version = $(shell $(1) -c \
  'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
WANTED_VERSION := $(call minor_version,$(PYTHON))
ifneq ($(WANTED_VERSION),$(call minor_version,$(VENV_PYTHON)))
$(SETUP_DONE): FORCE
endif
endif

$(SETUP_DONE): requirements.txt requirements-dev.txt pyproject.toml $(LOCK)
	@rm -f $@
	@if ! $(VENV_PYTHON) -c "$$CHECK_VENV" $(WANTED_VERSION) 2>/dev/null; then \
	  command -v $(PYTHON) >/dev/null || { \
	    echo "There is no $(PYTHON) on the PATH. Name an interpreter:" \
	      "make setup PYTHON=python3.12" >&2; exit 1; }; \
	  $(PYTHON) -c "$$CHECK_PYTHON" $(PYTHON) || exit 1; \
	  echo "Making $(VENV) with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv --clear $(VENV) || exit 1; \
	  test -n "$(LOCK)" || \
	    $(VENV_PYTHON) -m pip install -qq --upgrade pip || exit 1; \
	fi
	@echo "Installing packages in $(VENV) (a minute or more the first time)"
	@# The lower bounds, as equalities.
	@sed -n 's/^\([^#>]*\)>=\([0-9.]*\).*/\1==\2/p' requirements.txt \
	  > $(VENV)/oldest.txt
	@$(VENV_PYTHON) -m pip install -qq $(PACKAGES)
	@$(VENV_PYTHON) -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

# --- Checks -------------------------------------------------------------------

test: lint  ## Lint, then run the tests, less the slow and the fault tests
	$(PYTEST) -m "not slow and not faults" $(PYTEST_ARGS)

test-all: lint  ## Lint, then run all tests
	$(PYTEST) $(PYTEST_ARGS)

# Few and long: a test at a time goes to whichever process is free.
test-faults: setup  ## Kill runs, fill disks, break files: all fault tests
	$(PYTEST) --dist load -m faults $(PYTEST_ARGS)

# Those that are there stay: GOLDEN_ARGS="--force iodine" records one anew.
golden: setup  ## Record the golden checkpoints of what has none
	$(VENV_PYTHON) -m scripts.write_golden $(GOLDEN_ARGS)

lint: setup  ## Check style, types, and which module imports which
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV)/bin/lint-imports --no-logo

fix: setup  ## Format, and mend what the style checker can mend
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

# --- Supply chain -------------------------------------------------------------

# uv, pip-audit and cyclonedx-py, which are of no use to the project itself.
CI_PYTHON := .venv-ci/bin/python
UV_COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" .venv-ci/bin/uv pip compile \
  --quiet --no-config --universal \
  --python-version 3.10 --generate-hashes --upgrade

lock: .venv-ci/.setup-done  ## Write the lock files anew, with hashes from PyPI
	$(UV_COMPILE) requirements.txt requirements-dev.txt -o requirements.lock
	$(UV_COMPILE) requirements-ci.txt -o requirements-ci.lock

audit: .venv-ci/.setup-done  ## Look up known faults of what is locked; sbom.json
	.venv-ci/bin/cyclonedx-py requirements requirements.lock -o sbom.json
	.venv-ci/bin/pip-audit --require-hashes --disable-pip -r requirements.lock

.venv-ci/.setup-done: requirements-ci.lock
	$(PYTHON) -m venv --clear .venv-ci
	$(CI_PYTHON) -m pip install -qq --require-hashes -r requirements-ci.lock
	@touch $@

# --- Demonstration ------------------------------------------------------------

demo: setup  ## Train on synthetic scenes and draw their decomposition
	$(VENV_PYTHON) -m iodine.main with demo

notebook: setup  ## Execute Eval.ipynb and store what it shows
	$(VENV_PYTHON) scripts/execute_notebook.py Eval.ipynb

lab: $(VENV)/.lab-done  ## Open Eval.ipynb in JupyterLab
	$(VENV_PYTHON) -m jupyterlab Eval.ipynb

# --- Documentation ------------------------------------------------------------

docs: $(VENV)/.docs-done  ## Build the documentation site in site/
	@# It would advertise other programs.
	NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict --quiet
	@echo "Wrote site/index.html; for its search: python -m http.server -d site"

# What only these two need is added to the environment when they first run.
$(VENV)/.lab-done: $(SETUP_DONE)
	@echo "Installing JupyterLab in $(VENV)"
	@$(VENV_PYTHON) -m pip install -qq --no-build-isolation -e '.[notebook]'
	@touch $@

$(VENV)/.docs-done: $(SETUP_DONE) requirements-docs.txt
	@echo "Installing MkDocs in $(VENV)"
	@$(VENV_PYTHON) -m pip install -qq -r requirements-docs.txt
	@touch $@

# --- Devices ------------------------------------------------------------------

# More arguments: `make gpu-check GPU_CHECK_ARGS="--config tetrominoes"`.
gpu-check: setup  ## Say what the GPUs can do; write gpu_check.json
	$(VENV_PYTHON) -m benchmarks.gpu_check $(GPU_CHECK_ARGS)

# --- Cleaning -----------------------------------------------------------------

clean:  ## Remove caches and build products
	rm -rf build dist site .cache *.egg-info sbom.json .mypy_cache .pytest_cache .ruff_cache
	find iodine tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## Remove .venv, too; data and checkpoints stay
	rm -rf .venv .venv-oldest .venv-locked .venv-ci
