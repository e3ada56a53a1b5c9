# Two commands do all the set-up: `make demo` runs the main job, `make test` the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow check format clean

demo: $(STAMP)  ## bracket the robustness radius of ten held-out digits
	$(BIN)/verify radius examples/digits_dense.onnx --data digits --limit 10

test: $(STAMP)  ## all tests that take seconds
	$(BIN)/python -m pytest -q

test-slow: $(STAMP)  ## every test
	$(BIN)/python -m pytest -q -m "slow or not slow"

check: $(STAMP)  ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the code into the form that `check` expects
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

# The stamp is touched last, so that an install that broke off is taken up again.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]" --constraint constraints.txt
	touch $@
