# On a new machine with Python 3.11 or newer:
#   make demo    install, analyze the sample study, print the location of the report
#   make test    install, check style and types, run the tests
# Both install the versions in constraints.txt, which `make lock` upgrades. Another Python needs
# another environment: make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
DEMO := demo_output

.PHONY: help setup demo test test-all test-docs test-viewers test-lowest lock dist lint bench docs sample-data clean

help:
	@grep -E '^#   ' Makefile | sed 's/^#   //'

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "leakloc needs Python 3.11 or newer: make demo PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing leakloc into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing the developers' tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.dev

demo: $(VENV)/.runtime
	@$(BIN)/leakloc analyze sample_data/postoperative/dicom -o $(DEMO) --overwrite

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n auto

test-all: lint
	$(BIN)/pytest -n auto -m ''

# The code of the README, of the pages for those who do not program, and of two notebooks.
test-docs: $(VENV)/.dev
	$(BIN)/pytest -n auto -m slow tests/docs tests/notebooks \
		-k "README or radiologists or planners or first_look or your_masks"

# The tests that read SEG and SR with the code of a DICOM viewer; needs Node.js and npm.
test-viewers: $(VENV)/.dev
	npm install --prefix tests/report/viewers --no-audit --no-fund
	$(BIN)/pytest tests/report/test_structured_report.py -k viewer

# The tests with the lowest versions that pyproject.toml allows.
test-lowest: $(VENV)/.dev
	@echo "Installing the lowest versions into $(LOWEST) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		-e '.[all,test]'
	$(LOWEST)/bin/python -m pytest -n auto

# Source archive and wheel, and a check of their metadata for PyPI.
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/uv build --quiet
	$(BIN)/uv tool run twine check --strict dist/*

lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
		--no-header --no-annotate pyproject.toml -o constraints.txt

bench: $(VENV)/.dev
	$(BIN)/pytest benchmarks/test_speed.py --benchmark-only -q

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet -f docs/mkdocs.yml
	@echo "Open site/index.html"

sample-data: $(VENV)/.runtime
	$(BIN)/python sample_data/make_sample_data.py

clean:
	rm -rf $(VENV) $(LOWEST) $(DEMO) site .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
