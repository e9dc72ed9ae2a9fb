# `make` lists the targets. Everything runs in .venv, which the first target that needs it makes.

PYTHON ?= python3
EXTRAS ?= dev
OUT ?= runs/demo
ARGS ?=

BIN := .venv/bin
# Twice quiet: errors only.
PIP := $(BIN)/python -m pip --disable-pip-version-check -q -q
STAMP := .venv/.installed
# Tools that evenhand itself does not need; in an environment of their own, since they would change the tested versions.
TOOLS := .venv/tools
AUDIT := pip-audit==2.10.1
LOCK := uv==0.13.8
# The lock must be installable on each of these: Linux, x86-64, wheels only but for what has none.
PYTHONS := 3.11 3.12 3.13 3.14
SOURCES := langdetect rouge-score sqlitedict word2number
# Training makes and drops many tensors of many sizes; handing each back to the system costs a fifth of the time.
MALLOC := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456

.DEFAULT_GOAL := help
.PHONY: help venv compare test lint format demo-models demo-data coverage bench compat fuzz torture notebooks site audit \
        lock package clean clean-venv

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: PYTHON=$(PYTHON) EXTRAS=$(EXTRAS) OUT=$(OUT) ARGS='...' (handed on)"

venv: $(STAMP)  ## make .venv, with evenhand and its tools in the tested versions

$(STAMP): pyproject.toml constraints.txt
	@echo "installing into .venv; the first time this takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

compare: $(STAMP)  ## compare the mitigation methods on the demo models -> OUT
	$(BIN)/evenhand compare --out $(OUT) $(ARGS)

test: $(STAMP)  ## run the tests, a process a core (ARGS="-m 'not slow'" for the quick ones)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)  ## check style, formatting, types, the direction of imports and the language of new text
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(BIN)/python lint/language.py

format: $(STAMP)  ## put the sources into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo-models: $(STAMP)  ## train the demo models anew (two hours on 2 cores; ARGS="demo-b" for one of them)
	$(MALLOC) $(BIN)/python -m evenhand.proving_ground.family $(ARGS)

demo-data: $(STAMP)  ## write the demo benchmarks' files anew
	$(BIN)/python -m evenhand.proving_ground.generator.files

coverage: $(STAMP)  ## simulate how often intervals cover and tests err (ten minutes)
	$(BIN)/python benchmarks/coverage.py $(ARGS)

bench: $(STAMP)  ## measure speed and memory
	set -e; for file in benchmarks/bench_*.py; do $(BIN)/python "$$file" $(ARGS); done

compat: $(STAMP)  ## compare tiny models of 42 architectures and 20 adapters with plain forwards -> docs/models.md
	$(BIN)/python benchmarks/compat.py --write $(ARGS)

fuzz: $(STAMP)  ## damage files and texts at random and read them (ARGS="--hours 1"; findings -> runs/fuzz)
	$(BIN)/python -m tests.fuzz.long_run $(ARGS)

torture: $(STAMP)  ## kill runs, damage what is stored, flood a server and fuzz (twenty minutes; ARGS="--only kills")
	$(BIN)/python benchmarks/torture.py $(ARGS)

notebooks: $(STAMP)  ## run every notebook from an empty kernel, in place
	set -e; for file in notebooks/*.ipynb; do \
	    PYTHONWARNINGS='ignore:IProgress not found' $(BIN)/jupyter-execute --inplace "$$file"; done

site: $(STAMP)  ## build the documentation site, warnings being errors -> build/site/index.html
	$(BIN)/python docs/site/build_site.py $(ARGS)

audit: $(STAMP)  ## look up the locked packages in the database of known vulnerabilities
	@test -x $(TOOLS)/bin/pip-audit || { $(BIN)/python -m venv $(TOOLS) && $(TOOLS)/bin/pip install -q -q $(AUDIT) 2> /dev/null; } \
	    || true
	@$(BIN)/python lint/audit.py $(TOOLS)/bin/pip-audit $(ARGS)

lock: $(STAMP)  ## write requirements.lock anew from pyproject.toml and constraints.txt, and try it on each Python
	@test -x $(TOOLS)/bin/uv || { $(BIN)/python -m venv $(TOOLS) && $(TOOLS)/bin/pip install -q $(LOCK); }
	$(TOOLS)/bin/uv pip compile -q pyproject.toml --extra dev -c constraints.txt --universal --python-version 3.11 \
	    --generate-hashes --no-annotate --no-header -o $(TOOLS)/all.lock
	awk -f lint/lock.awk $(TOOLS)/all.lock > requirements.lock
	set -e; for version in $(PYTHONS); do echo "Python $$version"; \
	    $(TOOLS)/bin/uv pip install -q --dry-run --require-hashes --no-deps --target $(TOOLS)/none \
	        --python-version $$version --python-platform x86_64-manylinux_2_28 \
	        --only-binary :all: $(SOURCES:%=--no-binary %) -r requirements.lock; done

package: $(STAMP)  ## build wheel and sdist into dist/, install the wheel into a fresh environment and compare there
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m tests.fresh_install dist/*.whl $(ARGS)

clean:  ## remove caches and built archives (runs/ and .venv stay)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d -exec rm -rf {} +

clean-venv:  ## remove .venv
	rm -rf .venv
