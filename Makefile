VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin

# The floor of the torch dependency, in an environment of its own. TORCH_INDEX may name an index of
# CPU builds (https://download.pytorch.org/whl/cpu), which are 20 times smaller.
OLDEST := .venv-oldest
OLDEST_TORCH := $(shell sed -nE 's/.*"torch>=([0-9.]+)".*/\1/p' pyproject.toml)
OLDEST_TESTS := tests/test_package.py tests/autoencoder tests/priors/test_prior.py \
	tests/training/test_golden.py
PIP := -m pip install --quiet --disable-pip-version-check

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed  ## train, sample and measure on the built-in images, with a report
	$(BIN)/vqvae2 demo

test: $(VENV)/.installed  ## run all tests, on up to 4 cores
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-oldest: $(OLDEST)/.installed  ## run a short selection of tests on the oldest supported torch
	$(OLDEST)/bin/python -m pytest $(OLDEST_TESTS)

check: $(VENV)/.installed  ## check lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs  ## build the documentation site; warnings are errors
	$(BIN)/mkdocs build --strict --site-dir build/site

bench: runs/demo/metrics.json  ## run the benchmarks that need no data except the demo's
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/paper_models.py
	$(BIN)/python benchmarks/recompute.py
	$(BIN)/python benchmarks/what_levels_carry.py runs/demo
	$(BIN)/python benchmarks/sampling.py
	$(BIN)/python benchmarks/priors.py --run runs/demo
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/extraction.py --run runs/demo

runs/demo/metrics.json: | $(VENV)/.installed
	$(BIN)/vqvae2 demo

faults: $(VENV)/.installed  ## kill, cut and fill disks in training, and count how runs end
	$(BIN)/python tests/stress/faults.py

fuzz: $(VENV)/.installed  ## change files of every kind, and count how readers treat them
	$(BIN)/python tests/stress/fuzz.py

browser:  ## install the browser in which the app is tested (Debian, Ubuntu; needs root)
	apt-get update && apt-get install -y chromium

users: $(VENV)/.installed runs/demo/metrics.json  ## twenty users of the app at once, for five minutes
	$(BIN)/python tests/stress/app_users.py --run runs/demo

clean:  ## remove what make made
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python $(PIP) -c constraints.txt -e '.[docs]'
	touch $@

$(OLDEST)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -v '^torch==' constraints.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python $(PIP) -c $(OLDEST)/constraints.txt $(addprefix --index-url ,$(TORCH_INDEX)) \
		torch==$(OLDEST_TORCH)
	$(OLDEST)/bin/python $(PIP) -c $(OLDEST)/constraints.txt -e . pytest hypothesis scipy
	touch $@

.PHONY: help demo docs test test-oldest check format bench faults fuzz browser users clean
