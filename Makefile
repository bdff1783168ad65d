# The commands of a checkout. `make demo` and `make test` also do the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# This file is newer than the last set-up's inputs. A change of pyproject.toml or constraints.txt repeats the set-up.
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-browser test-docker test-all test-crash fuzz check bench stop clean constraints

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[local,dev]'
	touch $@

setup: $(READY) ## install all dependencies into .venv

demo: $(READY) ## run the main job, from digits archives to a benchmarked model; the project stays up
	$(BIN)/python -m demo

# The number of test files that run at the same time: most tests wait more than they compute. 0 runs one after another.
JOBS ?= 4
test: $(READY) check ## run the checks, and the tests that answer in minutes (JOBS=0: one file after another)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: $(READY) ## run the tests that wait long, start whole projects or are short campaigns (15 minutes)
	$(BIN)/python -m pytest -m 'slow and not browser and not docker' -n $(JOBS) --dist loadfile

test-browser: $(READY) ## run the tests of the pages in a real Chromium
	$(BIN)/python -m pytest -m browser

test-docker: $(READY) ## build the images and test the project in Docker (15 minutes; needs an engine)
	$(BIN)/bonseyes build --quiet
	$(BIN)/python -m pytest -m docker

test-all: ## run every test: test, test-slow, test-browser and test-docker
	$(MAKE) test
	$(MAKE) test-slow
	$(MAKE) test-browser
	$(MAKE) test-docker

# The size of a crash test campaign, for example `make test-crash CREATIONS=600 KILLS=120 SEED=7 ONLY=kills`.
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
test-crash: $(READY) ## kill containers, fill and break their disks, damage their files, edit their code (two hours)
	CRASH_CREATIONS=$(CREATIONS) CRASH_KILLS=$(KILLS) CRASH_RUN_KILLS=$(RUN_KILLS) CRASH_CANCELS=$(CANCELS) CRASH_POWER_CUTS=$(POWER_CUTS) \
	  CRASH_EDITS=$(EDITS) CRASH_DAMAGES=$(DAMAGES) CRASH_REEXECUTIONS=$(REEXECUTIONS) \
	  CRASH_EVERY=$(EVERY) CRASH_STUCK_S=$(STUCK_S) CRASH_SEED=$(SEED) \
	  $(BIN)/python -m pytest tests/crash -m slow -s -v --timeout=7200 $(if $(ONLY),-k "$(ONLY)")

CASES ?= 100000
fuzz: $(READY) ## give every parser 100,000 almost valid inputs (an hour; CASES=, SEED=, ONLY=)
	FUZZ_CASES=$(CASES) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest tests/fuzz -s -v --timeout=7200 $(if $(ONLY),-k "$(ONLY)")

check: $(READY) ## check format, lint, types, imports, and that tools, images, services and pipelines match
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bonseyes check

bench: $(READY) ## measure the performance beside rivals (15 minutes)
	$(BIN)/python -m benchmarks

stop: ## end the project that `make demo` or `bonseyes up` started
	@if test -x $(BIN)/bonseyes; then $(BIN)/bonseyes down; fi

clean: stop ## end the project, then remove the environment, the project's state and all caches
	rm -rf $(VENV) .bonseyes .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# The packages of the images, with the hashes of their files for every system.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --constraint constraints.txt
constraints: $(READY) ## write constraints.txt from the installed packages, and requirements/ from constraints.txt
	{ echo '# Every version that this project was tested with; `make constraints` renews it.'; \
	  $(BIN)/python -m pip freeze --exclude-editable --exclude uv | sed 's/+cpu$$//'; } > constraints.txt
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(LOCK) pyproject.toml --extra tool --extra gateway --output-file requirements/tool.txt
	$(LOCK) pyproject.toml --extra visualization --output-file requirements/visualization.txt
	$(LOCK) pyproject.toml --extra pipeline --output-file requirements/pipeline.txt
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(LOCK) - --output-file requirements/build.txt
