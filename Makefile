VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.installed  ## the whole job on the built-in pictures, with a report
	$(BIN)/vqvae2 demo

test: $(VENV)/.installed  ## all tests
	$(BIN)/python -m pytest

check: $(VENV)/.installed  ## lint, format and types, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: runs/demo/metrics.json  ## benchmarks that need no data but the demo's
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/paper_models.py
	$(BIN)/python benchmarks/what_levels_carry.py runs/demo
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/priors.py --run runs/demo
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/extraction.py --run runs/demo

runs/demo/metrics.json: | $(VENV)/.installed
	$(BIN)/vqvae2 demo

faults: $(VENV)/.installed  ## kills, cut files, full disks: what becomes of a run
	$(BIN)/python tests/stress/faults.py

fuzz: $(VENV)/.installed  ## changed files of every kind: what readers do with them
	$(BIN)/python tests/stress/fuzz.py

clean:  ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.PHONY: help demo test check format bench faults fuzz clean
