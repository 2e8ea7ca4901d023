# `make demo` and `make test` work on a fresh clone: each makes .venv and installs what it needs.
# Another Python: `make test PYTHON=/path/to/python3.11`. It is read when .venv is made, not later.

PYTHON ?= python3.11
BIN := .venv/bin
INPUTS := pyproject.toml constraints.txt

DEMO_JOB := jobs/spleen_ct_segmentation
DEMO_DATA := build/demo/data
DEMO_RUN := build/demo/run
DEMO_SITES := 3
DEMO_ROUNDS := 3

.PHONY: help install demo federation test tests test-all lint format fuzz coverage bench docs release \
    requirements sbom clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:  # a venv without pip, where ensurepip is missing, must not pass for a whole one

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: .venv/.installed-dev  ## make .venv with everything for development

demo: .venv/.installed-run  ## train one model across three simulated sites, on synthetic volumes
	$(BIN)/mmar demo-data $(DEMO_DATA) --sites $(DEMO_SITES) --overwrite
	$(BIN)/mmar simulate $(DEMO_JOB) --data $(DEMO_DATA) --sites $(DEMO_SITES) \
	    --rounds $(DEMO_ROUNDS) --workspace $(DEMO_RUN)

federation: .venv/.installed-run  ## the same job in a real federation on this machine: kits, mutual TLS
	$(BIN)/python scripts/federation.py $(FEDERATION)

# A worker takes a file of tests; those that take long come first. There are two workers more than
# cores, because a federation waits for half of its time.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 2)
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: .venv/.installed-dev  ## all checks, and next to them all tests but the rehearsals; 10 minutes
	$(MAKE) --no-print-directory -j 2 lint tests

tests: .venv/.installed-dev
	$(PYTEST) -m "not rehearsal"

test-all: lint  ## all checks, then all tests, the rehearsals of a whole federation too
	$(PYTEST)

lint: .venv/.installed-dev  ## all checks without the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed-dev  ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: .venv/.installed-dev  ## two million random inputs to all that reads what strangers write
	$(BIN)/python -W ignore scripts/fuzz.py $(FUZZ)

coverage: .venv/.installed-dev  ## the tests, with the lines they do not reach
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered

bench: .venv/.installed-dev  ## measure everything and write the page on performance; takes most of an hour
	for name in round_overhead start_up many_sites large_state round_gap large_state_nvflare \
	    aggregation; do \
	    $(BIN)/python benchmarks/$$name.py $(BENCH) || exit 1; \
	done
	$(BIN)/python benchmarks/table.py

docs: .venv/.installed-dev  ## build the documents as pages in site/; a link that leads nowhere fails
	$(BIN)/mkdocs build --strict

release: requirements sbom  ## all that a deployment asks for: hashes, parts, licences

requirements: .venv/.installed-release  ## what a deployment installs, with hashes
	PATH="$(BIN):$$PATH" $(BIN)/python scripts/lock_requirements.py

sbom: .venv/.installed-release  ## parts (CycloneDX) and licences of what is installed, in build/
	$(BIN)/python scripts/sbom.py

clean:  ## remove what was built; .venv stays
	rm -rf build dist site htmlcov .coverage .hypothesis .import_linter_cache .mypy_cache \
	    .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

# A stamp newer than both inputs says that .venv holds what they ask for; edit one, and the next
# `make` installs again. The development set contains the set that a run needs.
.venv/.installed-run: $(INPUTS) | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: $(INPUTS) | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch .venv/.installed-run $@

.venv/.installed-release: $(INPUTS) | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[release]'
	@touch .venv/.installed-run $@

.venv/bin/python:
	@for python in '$(PYTHON)' python3; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "making .venv with $$("$$python" --version)"; \
	        exec "$$python" -m venv --clear .venv; \
	    fi; \
	done; \
	echo "Python 3.11 or newer is needed: neither '$(PYTHON)' nor 'python3' is one." >&2; \
	echo "Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	exit 1
