# make demo, make test: each sets up .venv by itself. See README.md for the variables.
PYTHON ?= python3
# What pip is told about PyTorch; may hold options, such as the index of the CPU builds.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
READY := $(VENV)/ready

.PHONY: setup demo test lint format clean

setup: $(READY)

# The stamp is touched last, so an interrupted installation is taken up again.
# An environment whose Python has gone, or that came to be without pip, is made anew.
$(READY): pyproject.toml requirements-sam2.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --upgrade "setuptools>=77" wheel
	$(PIP) install $(TORCH)
	SAM2_BUILD_CUDA=0 $(PIP) install --no-deps --no-build-isolation -r requirements-sam2.txt
	$(PIP) install --no-build-isolation --editable ".[dev]"
	@touch $@

demo: $(READY)
	$(BIN)/diffusam demo -o demo

# More threads than free cores make PyTorch many times slower; waiting threads should not spin.
test: export OMP_NUM_THREADS = 2
test: export OMP_WAIT_POLICY = PASSIVE
test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build demo *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
