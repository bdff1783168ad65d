# The commands of a checkout. `make demo` and `make test` do all set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One stamp per state of the dependencies: changing either file sets up anew.
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-browser test-docker test-all test-crash fuzz check bench stop clean constraints

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[local,dev]'
	touch $@

setup: $(READY) ## install everything into .venv

demo: $(READY) ## run the main job for real: digits archives to a benchmarked model; stays up
	$(BIN)/python -m demo

# How many files of tests run at the same time: most tests wait for others more than they compute. 0: one after the other.
JOBS ?= 4
test: $(READY) check ## the checks, and the tests that answer in minutes (JOBS=0: one file after the other)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(READY) ## the tests that wait long, start whole projects or are short campaigns (15 minutes)
	$(BIN)/python -m pytest -m 'slow and not browser and not docker' -n $(JOBS) --dist loadfile

test-browser: $(READY) ## the tests of pages in a real Chromium
	$(BIN)/python -m pytest -m browser

test-docker: $(READY) ## build the images and run the tests of the project in Docker (15 minutes; needs an engine)
	$(BIN)/bonseyes build --quiet
	$(BIN)/python -m pytest -m docker

test-all: ## every test: test, test-slow, test-browser and test-docker, one after the other
	$(MAKE) test
	$(MAKE) test-slow
	$(MAKE) test-browser
	$(MAKE) test-docker

# What a campaign does; for example `make test-crash CREATIONS=600 KILLS=120 SEED=7 ONLY=kills`.
CREATIONS ?= 3000
KILLS ?= 600
RUN_KILLS ?= 100
CANCELS ?= 500
POWER_CUTS ?= 20
EDITS ?= 1000
DAMAGES ?= 100
REEXECUTIONS ?= 1000
EVERY ?= 1
STUCK_S ?= 10
ONLY ?=
test-crash: $(READY) ## kill containers, fill and break their disks, damage what they keep, edit their code (two hours)
	CRASH_CREATIONS=$(CREATIONS) CRASH_KILLS=$(KILLS) CRASH_RUN_KILLS=$(RUN_KILLS) CRASH_CANCELS=$(CANCELS) CRASH_POWER_CUTS=$(POWER_CUTS) \
	  CRASH_EDITS=$(EDITS) CRASH_DAMAGES=$(DAMAGES) CRASH_REEXECUTIONS=$(REEXECUTIONS) \
	  CRASH_EVERY=$(EVERY) CRASH_STUCK_S=$(STUCK_S) CRASH_SEED=$(SEED) \
	  $(BIN)/python -m pytest tests/crash -m slow -s -v --timeout=7200 $(if $(ONLY),-k "$(ONLY)")

CASES ?= 100000
fuzz: $(READY) ## give every parser 100,000 inputs that are almost right (an hour; CASES=, SEED=, ONLY=)
	FUZZ_CASES=$(CASES) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest tests/fuzz -s -v --timeout=7200 $(if $(ONLY),-k "$(ONLY)")

check: $(READY) ## format, lint, types, import rule, and whether tools, images, services and pipelines fit together
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bonseyes check

bench: $(READY) ## measure every headline figure beside its rival
	$(BIN)/python -m benchmarks

stop: ## end what `make demo` or `bonseyes up` started
	@if test -x $(BIN)/bonseyes; then $(BIN)/bonseyes down; fi

clean: stop ## remove the environment, the project's state and every cache
	rm -rf $(VENV) .bonseyes .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# What images install, with the hashes of its files for every system.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --constraint constraints.txt
constraints: $(READY) ## renew constraints.txt from what is installed now, and requirements/ from that
	{ echo '# Every version that this project was tested with; `make constraints` renews it.'; \
	  $(BIN)/python -m pip freeze --exclude-editable --exclude uv | sed 's/+cpu$$//'; } > constraints.txt
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(LOCK) pyproject.toml --extra tool --extra gateway --output-file requirements/tool.txt
	$(LOCK) pyproject.toml --extra visualization --output-file requirements/visualization.txt
	$(LOCK) pyproject.toml --extra pipeline --output-file requirements/pipeline.txt
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(LOCK) - --output-file requirements/build.txt
