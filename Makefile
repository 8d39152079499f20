# `make demo` and `make test` need nothing but Python 3.11+ and the network for pip.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.requirements-installed

.PHONY: demo test chaos check demo-model clean

demo: $(READY)  ## draw the example persona's tweets on two workers
	$(BIN)/python generate_images_from_tweets.py examples/persona_tweets.json 2

test: $(READY) check  ## lint, type hints and the whole test suite
	$(BIN)/python -m pytest

chaos: $(READY)  ## every kill, hang and signal of docs/RELIABILITY.md, with a table at the end
	CHAOS=full $(BIN)/python -m pytest -n 3 tests/chaos/test_kills.py tests/chaos

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

demo-model: $(READY)  ## train the embedded demo model again, from a seed
	$(BIN)/python -m demo_model.build

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) outputs .mypy_cache .ruff_cache .pytest_cache
