# Every target makes what it needs: a virtual environment in .venv with the pinned packages of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo demo-subject demo-vision test test-all check format clean

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
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not network and not gpu"

test-all: $(READY)  ## every test this machine can run
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
