# Two commands on a bare machine with Python 3.11 or newer and make: `make demo` and `make test`.
# While working: `make check`, the same without the tests of more than a second.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check lint types tests fast long smoke lowest clean

demo: $(VENV)/installed
	$(BIN)/vidatt demo --out demo-out

test: lint types tests

check: lint types fast

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy wants the package under its own name, and the checkout may be called anything
types: $(VENV)/installed-dev
	mkdir -p build/types
	ln -sfn "$(CURDIR)" build/types/vidatt
	cd build/types && MYPYPATH=. "$(abspath $(BIN))/mypy" --config-file "$(CURDIR)/setup.cfg" -p vidatt

# two files of tests at a time: their fixtures are made once per file; tests/conftest.py puts the long files first
tests: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not long'

# those that take less than a second each
fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

# what takes minutes: killed processes, full disks, damaged stores, thousands of broken videos
long: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long $(AGAIN)

# the real chain on a few videos, for another interpreter: make smoke PYTHON=python3.12 VENV=.venv-3.12
smoke: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/test_chain.py

# the same with the lowest versions that setup.cfg allows, which have wheels for Python 3.11: make lowest VENV=.venv-lowest;
# all tests: make lowest VENV=.venv-lowest TESTS=tests
lowest: TESTS ?= tests/test_chain.py
lowest: $(VENV)/lowest
	$(BIN)/python -m pytest $(TESTS)

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vidatt needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/lowest: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^install_requires/,/^$$/s/^    \(.*\) >= \([^,]*\).*/\1==\2/p' setup.cfg > $(VENV)/lowest.txt
	$(PIP) --only-binary :all: -r $(VENV)/lowest.txt pytest pytest-timeout pytest-xdist hypothesis
	$(PIP) --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) build demo-out *.egg-info
