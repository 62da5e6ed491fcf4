# Every target makes what it needs: a virtual environment in .venv with the pinned packages of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEFAULT_TESTS := -n 2 -m "not slow and not network and not gpu"

.PHONY: demo demo-subject demo-vision test test-all test-oldest test-newest audit fuzz check format clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)  ## the whole path on the embedded model: train, evaluate, export, reload in stock PEFT
	rm -rf demo
	OMP_NUM_THREADS=1 $(BIN)/moslora demo

demo-subject: $(READY)  ## teach the embedded diffusion model a character from five pictures, and look at the sheet
	rm -rf demo-subject
	OMP_NUM_THREADS=1 $(BIN)/moslora demo subject

demo-vision: $(READY)  ## LoRA, MoSLoRA and 4-bit QMoSLoRA of the embedded vision-language model answer questions
	rm -rf demo-vision
	OMP_NUM_THREADS=1 $(BIN)/moslora demo vision

test: $(READY)  ## the default tests: CPU, offline
	OMP_NUM_THREADS=1 $(BIN)/pytest $(DEFAULT_TESTS)

test-all: $(READY)  ## every test this machine can run
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

test-oldest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-oldest test-newest: $(READY)  ## the default tests with the oldest, or the newest, versions that pyproject.toml allows
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-$(@:test-%=%)
	$(BIN)/uv pip install --quiet --python .venv-$(@:test-%=%)/bin/python --resolution $(RESOLUTION) --editable '.[dev]'
	OMP_NUM_THREADS=1 .venv-$(@:test-%=%)/bin/pytest $(DEFAULT_TESTS)

audit: $(READY)  ## known vulnerabilities of the pinned packages; needs pypi.org
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

fuzz: $(READY)  ## 100,000 damaged files and requests
	$(BIN)/pip install --quiet --disable-pip-version-check atheris
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz --cases 100000

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .mypy_cache .pytest_cache .ruff_cache
