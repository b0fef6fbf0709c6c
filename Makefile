# make demo, make test: each sets up .venv by itself. See README.md for the variables.
PYTHON ?= python3
# What pip is told about PyTorch; may hold options, such as the index of the CPU builds.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/installed
# With what tests need besides: the test host of the Slicer module alone is larger than all the rest.
READY := $(VENV)/ready
# With what the benchmarks need besides.
BENCHMARK_READY := $(VENV)/ready-benchmark

.PHONY: setup demo host-demo test benchmark tables lint format clean

setup: $(INSTALLED)

# The stamp is touched last, so an interrupted installation is taken up again; an environment without a working
# pip (Debian makes one where python3-venv is missing) is made anew.
$(INSTALLED): pyproject.toml requirements-sam2.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --upgrade "setuptools>=77" wheel
	$(PIP) install $(TORCH)
	$(PIP) install --no-warn-conflicts --no-build-isolation --editable ".[cohort,processes,training]"
	SAM2_BUILD_CUDA=0 $(PIP) install --no-deps --no-build-isolation -r requirements-sam2.txt
	@touch $@

$(READY): $(INSTALLED)
	$(PIP) install --no-warn-conflicts --no-build-isolation --editable ".[dev]"
	@touch $@

$(BENCHMARK_READY): $(READY)
	$(PIP) install --no-build-isolation --editable ".[dev,benchmark]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m DiffuSAMLib demo -o demo

# The Slicer module in the test host, measured and pictured (Linux on x86_64); with the data sets, real cases too.
host-demo: $(READY)
	$(BIN)/python Testing/host_demo.py

# More threads than free cores make PyTorch many times slower; waiting threads should not spin. Files are the unit, for
# what a file sets up is shared by its tests; in their own order, since those of the fewest tests, which would come last,
# are among the longest.
WORKERS ?= 2
test: export OMP_NUM_THREADS = 1
test: export OMP_WAIT_POLICY = PASSIVE
test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# Days on two cores, and stops and goes on as you like: needs the data sets in DIFFUSAM_DATA (default: ../shared/data).
# MINUTES is the time of each training; make tables shows what there is so far.
MINUTES ?= 20
benchmark: export OMP_NUM_THREADS = 2
benchmark: export OMP_WAIT_POLICY = PASSIVE
benchmark: $(BENCHMARK_READY)
	$(BIN)/python Testing/benchmarks/backbone_quality.py
	$(BIN)/python Testing/benchmarks/bundled_prior.py
	$(BIN)/python Testing/benchmarks/speed.py --sam21
	$(BIN)/python Testing/benchmarks/demo_seeds.py
	$(BIN)/python Testing/benchmarks/training_speed.py
	$(BIN)/python Testing/benchmarks/training_speed.py --sam21
	$(BIN)/python Testing/benchmarks/run_all.py --minutes $(MINUTES)

tables: $(BENCHMARK_READY)
	$(BIN)/python Testing/benchmarks/tables.py

lint: $(READY)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

format: $(READY)
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

clean:
	rm -rf $(VENV) build demo *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
