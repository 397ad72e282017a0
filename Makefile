# Two commands matter: `make demo` and `make test`. Both need Python 3.11 and a package index, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint quick soak bench docs clean

demo: $(VENV)/run
	$(BIN)/batchkit process sample_data/cities.txt --batch-size 100 -f sample_data/functions.py:slug -o cities.jsonl

test: $(VENV)/dev
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not soak"

quick: $(VENV)/dev
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow and not soak"

check: lint test

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(VENV)/dev
	$(BIN)/pytest -q -m soak

bench: $(VENV)/bench
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/parquet.py
	$(BIN)/python benchmarks/parallel.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/history.py

$(VENV)/run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/run

$(VENV)/bench: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev,bench]'
	touch $@ $(VENV)/dev $(VENV)/run

docs: $(VENV)/dev
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) .batchkit cities.jsonl cities.jsonl.parts
