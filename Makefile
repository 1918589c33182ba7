# Two commands are all a fresh machine needs: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: setup demo test test-all test-lowest lint check bench clean

setup: $(VENV)/.ready                   ## a virtual environment with the locked versions

# torch first and by its exact version: a later resolver step must not pull another build of it
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -m1 '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: setup                             ## cats and cushions: three networks, a picture and a page
	$(BIN)/whatwhere demo -o whatwhere-demo

test: setup                             ## the tests, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: setup                         ## also the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-lowest: setup                      ## the tests with the oldest versions that pyproject.toml allows, in $(VENV)-lowest
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep -m1 '^torch==' requirements.lock)"
	$(BIN)/python tests/lowest.py > $(VENV)-lowest/requirements.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV)-lowest/requirements.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(VENV)-lowest/bin/python -m pytest -n 2 --dist loadfile -m "not slow" -W ignore::DeprecationWarning -W ignore::FutureWarning

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test                        ## lint, format, types and tests; warnings are errors

bench: setup                            ## the benchmarks, small; run a script without --quick for bench/RESULTS.md
	for script in $$(grep -l -e '"--quick"' bench/*.py); do $(BIN)/python $$script --quick || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info src/*.egg-info
