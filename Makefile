# Works on a fresh machine with Python ≥ 3.11 and make; everything is installed into .venv.
PYTHON ?= python3
PDE ?= burgers
VENV := .venv
BIN := $(VENV)/bin

# One thread a worker, and compiled Python kept: programs that tests start read it again.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
# Files of many short tests, half the time of those that are not slow: make check leaves them out.
LONG := certification/test_certificates.py datasets/test_exports.py datasets/test_gallery.py \
	datasets/test_generation.py datasets/test_imports.py \
	datasets/test_recipes.py operators/test_gfno.py operators/test_sfno.py solvers/test_multigrid.py \
	solvers/test_darcy.py solvers/test_shallow_water.py surrogates/test_conservation.py \
	surrogates/test_sphere_surrogate.py commands/test_command_line.py

.PHONY: setup demo test check gpu lint types clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sobolev needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## the main job: data, training, evaluation, figures (PDE=darcy for the other problem)
	$(BIN)/sobolev demo $(PDE)

test: setup
	$(PYTEST)

check: setup  ## the quick half of the tests, for work in progress; annotations are checked by make test
	JAXTYPING_DISABLE=1 $(PYTEST) -m "not slow" $(LONG:%=--ignore=tests/%)

# make gpu PYTHON=python3 takes that interpreter as it is: nothing is installed into it, and nothing downloaded.
ifeq ($(origin PYTHON),command line)
GPU_PYTHON := $(PYTHON)
else
GPU_PYTHON := $(BIN)/python
gpu: setup
endif
# A copy of the package is imported, and not the folder of its name that lies here (-P).
ON_GPU := PYTHONPATH=$(CURDIR)/build/gpu$(PYTHONPATH:%=:%) $(GPU_PYTHON) -P

gpu:  ## the tests that need a CUDA GPU, skipped without one, and the table of benchmarks/gpu.py
	rm -rf build
	$(GPU_PYTHON) -m pip install --quiet --no-deps --no-build-isolation --target build/gpu .
	$(ON_GPU) -m pytest --quiet tests/gpu; tests=$$?; $(ON_GPU) benchmarks/gpu.py --out build/gpu.json && exit $$tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy does not follow the package mapping of an editable install: it checks a copy
	rm -rf build  # files that have moved would stay in build/lib
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	MYPYPATH=build/types $(BIN)/mypy -p sobolev

clean:
	rm -rf $(VENV) build dist *.egg-info
