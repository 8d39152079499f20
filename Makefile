# `make demo` and `make test` need nothing but Python 3.11+ and the network for pip.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.requirements-installed
READY_TO_TEST := $(VENV)/.dev-requirements-installed

.PHONY: demo edit edit-demo serve test test-all chaos fuzz check lint bench gpu-wheels demo-model clean

demo: $(READY)  ## draw the example persona's tweets on two workers
	$(BIN)/python generate_images_from_tweets.py examples/persona_tweets.json 2

edit: $(READY)  ## change four example pictures as an instruction says
	$(BIN)/python edit_images.py examples/edit_pairs --instruction "change the sky to night" --limit 4

edit-demo: $(READY)  ## 50 example edits by the demo editor, scored by the demo judge, and the table
	$(BIN)/python run_edit_benchmark.py --config config/edit_benchmark.yaml

serve: $(READY)  ## keep the demo models loaded behind http://127.0.0.1:8000, with their LoRAs
	$(BIN)/python serve.py --cpu-workers 2 --lora-dir demo_model/loras

# Where Python is told to keep no bytecode, each of a thousand processes compiles what it imports.
test test-all chaos: export PYTHONDONTWRITEBYTECODE :=
test-all: WHICH :=
test: WHICH := -m "not slow"
test: $(READY_TO_TEST) lint  ## lint, type hints and all tests but some that take seconds each
	$(TYPES_AND_TESTS)

test-all: $(READY_TO_TEST) lint  ## lint, type hints and the whole test suite
	$(TYPES_AND_TESTS)

# Type hints are checked beside the tests: mypy takes one core, and tests wait now and then.
define TYPES_AND_TESTS
	@types=$$(mktemp); $(BIN)/mypy > $$types 2>&1 & checker=$$!; \
	  $(BIN)/python -m pytest $(WHICH); tested=$$?; \
	  wait $$checker; checked=$$?; cat $$types; rm $$types; \
	  exit $$((tested || checked))
endef

chaos: $(READY_TO_TEST)  ## every kill, hang and signal of docs/RELIABILITY.md on both engines, with tables at the end; all that users see on Ray; the API and a long gallery
	CHAOS=full $(BIN)/python -m pytest -n 3 --dist worksteal -m "not ray" tests/chaos/test_kills.py tests/chaos \
	  tests/server/test_openapi.py tests/server/test_page_gallery.py
	CHAOS=full $(BIN)/python -m pytest -n 2 -m ray tests

check: lint
	$(BIN)/mypy

lint: $(READY_TO_TEST)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

bench: $(READY)  ## what benchmarks/RESULTS.md shows of a machine without GPU
	for name in encode start one_worker command admission judging scheduling stages memory; do \
	  $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

# What a machine with torch usually has, in a version that is new enough.
GPU_HAS := numpy pillow pillow-heif tokenizers psutil safetensors accelerate regex tqdm prometheus-client uvloop h11 anyio idna \
  click typer shellingham pygments packaging requests certifi urllib3 charset-normalizer hf-xet \
  pytest iniconfig pluggy

gpu-wheels: $(READY_TO_TEST)  ## wheels/ for benchmarks/gpu.py on a machine without a network
	rm -rf wheels
	$(BIN)/python -m benchmarks.gpu_wheels wheels --has $(GPU_HAS) --also torchao gguf pytest-xdist

SECONDS_EACH ?= 60
TARGETS ?= tweets prompts edits from_png settings ledger lora image provenance pairs re_edit verdict

fuzz: $(READY_TO_TEST)  ## coverage-guided fuzzing of every reader; not part of the suite
	$(BIN)/pip install --quiet atheris==3.0.0
	for target in $(TARGETS); do $(BIN)/python -m tests.hostile.fuzz $$target $(SECONDS_EACH) || exit 1; done

# DEVICE=cuda: all of it in five minutes of a GPU. DEVICE=cpu: a day or so of two cores that
# nothing else wants; kill it at any moment and call it again. PARTS: what to train.
DEVICE ?= cpu
PARTS ?= generator editor judge
KEEP ?=
LOWEST := $(if $(filter cpu,$(DEVICE)),nice -n 19)

demo-model: $(READY)  ## train the demo's models; they are shipped if no figure is worse
	$(LOWEST) $(BIN)/python -m demo_model.build --device $(DEVICE) --only $(PARTS)
	$(LOWEST) $(BIN)/python -m demo_model.gate --device $(DEVICE) $(if $(KEEP),--keep $(KEEP))

$(READY): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

$(READY_TO_TEST): $(READY) requirements-dev.txt requirements-extra.txt
	$(BIN)/pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) outputs .mypy_cache .ruff_cache .pytest_cache
