# Every target is self-contained: it makes .venv on first use and again when the requirements change.
PYTHON ?= python3
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Threads that spin while they wait cost more than they give.
export OMP_WAIT_POLICY = PASSIVE
# Nothing is downloaded at run time, and nothing needs a screen.
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
export MPLBACKEND = Agg
export NO_MKDOCS_2_WARNING = 1
export PYDEVD_DISABLE_FILE_VALIDATION = 1
# Compiled modules are kept: commands, kernels and workers of the tests import the library again and again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test lint format docs bench constraints clean

help:
	@echo "make demo | test | lint | format | docs | bench | constraints | clean   (PYTHON=$(PYTHON))"

# torch goes first and by its plain version, so that a CPU wheel is taken wherever one is on offer.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("lattq needs Python 3.11 or later: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[llm,plot,dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/lattq demo

# One thread per worker: the workers are the parallelism.
test: export OMP_NUM_THREADS = 1
test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Notebooks that the tests executed on the same files (.notebooks) do not run again.
docs: $(STAMP)
	$(BIN)/python docs/render.py
	$(BIN)/mkdocs build --strict

bench: $(STAMP)
	@set -e; for script in benchmarks/claims/*.py; do \
		[ -e "$$script" ] || { echo "no claims in benchmarks/claims"; break; }; \
		echo "== $$script"; $(BIN)/python "$$script"; \
	done

# Rewrite the pins from what is installed now, without local versions and paths.
constraints: $(STAMP)
	@{ echo "# The exact versions the make targets install and the tests ran with (make constraints rewrites this file)."; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//; s/ @ .*//' | LC_ALL=C sort -f; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt && touch $(STAMP)

clean:
	rm -rf $(VENV) site docs/_generated .notebooks .pytest_cache .ruff_cache .hypothesis
