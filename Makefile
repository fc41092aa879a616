# make demo   the main job on this repository: index, fine-tune, evaluate, promote, serve, ask
# make test   every check: format, lint, types, import direction, tests
# make test-long      the same with the full counts of kills; make test-editors   what needs npm, emacs and Chromium
# make test-4bit-and-unsloth   the two tests that the others skip
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One file of tests at a time to each worker; a worker may hold a model of 1 GB. Tests also wait, for processes and for
# the clock, so there are three workers to two cores; what each of them computes takes one thread.
CORES := $(shell $(PYTHON) -c 'import os; print(min(4, len(os.sched_getaffinity(0))))')
WORKERS := --numprocesses $(shell expr $(CORES) \* 3 / 2) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
# Few of the modules that are installed are ever imported: each is compiled when it first is, and kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-long test-editors test-4bit-and-unsloth lint clean

setup: $(VENV)/.installed

# The pip that comes with Python 3.11 does as well where no other can be had; it takes twice the processor time.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python -m inhouse_server.demo

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers $(CORES)
	$(BIN)/lint-imports

test test-long: export OMP_NUM_THREADS := 1

test: lint
	$(BIN)/pytest $(WORKERS) -m 'not long and not editors'

test-long: lint
	$(BIN)/pytest $(WORKERS) -m 'not editors'

test-editors: lint
	$(BIN)/pytest -m editors

# bitsandbytes and Unsloth compute on a processor, too. They lie in a folder of their own: in the environment PEFT would
# import the one in every process, and the other wants packages for a GPU.
EXTRAS := .extras
$(EXTRAS)/.installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --target $(EXTRAS) bitsandbytes==0.50.2 unsloth==2026.10.9 \
	  unsloth_zoo==2026.10.9 torchao==0.18.0 diffusers einops msgspec nest-asyncio sentencepiece structlog tyro \
	  docstring-parser typeguard shtab hf_transfer cut_cross_entropy
	touch $@

test-4bit-and-unsloth: $(EXTRAS)/.installed
	PYTHONPATH=$(CURDIR)/$(EXTRAS) UNSLOTH_SKIP_TORCHVISION_CHECK=1 $(BIN)/pytest tests/training/test_four_bit_answers.py tests/training/test_trainers_agree.py

clean:
	rm -rf $(VENV) $(EXTRAS) .inhouse
