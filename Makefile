# In tests one thread per library call: test processes share the cores. Training is left alone.
test test-all: export OMP_NUM_THREADS = 1
test test-all: export OPENBLAS_NUM_THREADS = 1

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: setup demo docs test test-all bench clean

setup: $(STAMP)

# Torch comes first and alone, so that the build chosen for this machine is the one that stays.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -c constraints.txt -e '.[all,docs,onnx]'
	touch $@

demo: $(STAMP)
	$(BIN)/mppi-agent compare Pendulum-v1 --minutes 1 --out runs/demo

# Into build/site; a warning is an error (and with --quiet there would be none).
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: $(STAMP) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

test-all: $(STAMP) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m ""

bench: $(STAMP)
	$(BIN)/python benchmarks/policies.py Pendulum-v1 InvertedPendulum-v5 MountainCarContinuous-v0 \
		--seeds 0 --algos mppigps ppo sac --out runs/bench.csv

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
