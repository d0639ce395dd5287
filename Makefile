# Needs Python 3.11 or 3.12. Where uv is missing, pip puts one into .uv/.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := .venv
export UV_COMPILE_BYTECODE := 1
# Set in many containers: each start then compiles src/ again, and each test run every test.
export PYTHONDONTWRITEBYTECODE :=

UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .uv/bin/uv)
BIN := .venv/bin
EXPORT = echo '\# Linux x86-64. Install with: pip install --no-deps -r requirements.txt' && \
  $(UV) export --quiet --frozen --no-dev --no-hashes --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help setup demo test nightly check format requirements lock

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

setup: .venv/.synced ## create .venv from uv.lock (7.2 GB)

demo: setup ## the whole path on a tiny made-up dataset
	$(BIN)/python -m src demo

TEST = $(BIN)/python -m pytest -n 2 --dist worksteal

test: setup ## run the tests, all but the nightly ones
	$(TEST) -m "not nightly" $(ARGS)

# Clusters by themselves, a file by one worker: a machine is the node of one SLURM at a time.
nightly: setup ## run the other tests: long, of rare paths, of clusters
	$(TEST) -m nightly --ignore tests/launch $(ARGS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m nightly tests/launch $(ARGS)

check: setup ## format, lint, types, import rules, spelling, requirements.txt
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/codespell
	@($(EXPORT)) | diff - requirements.txt || { echo 'requirements.txt is old: make requirements'; exit 1; }

format: setup ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

requirements: setup ## rewrite requirements.txt from uv.lock, for pip users
	@($(EXPORT)) > requirements.txt

lock: $(UV) ## resolve again after a change in pyproject.toml
	$(UV) lock --default-index https://pypi.org/simple

# uv.lock names pypi.org; behind a mirror (set for uv or pip) the same hashes come from there.
MIRROR = $(or $(UV_DEFAULT_INDEX),$(UV_INDEX_URL),$(PIP_INDEX_URL),\
  $(shell python3 -m pip config get global.index-url 2>/dev/null))

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@$(UV) python find >/dev/null 2>&1 || \
	  { echo "rvf needs Python 3.11 or 3.12 on the PATH; python3 is $$(python3 --version 2>&1)"; exit 1; }
	@$(if $(MIRROR),$(FROM_MIRROR),$(UV) sync --locked --all-extras)
	@touch $@

FROM_MIRROR = $(UV) venv --quiet --allow-existing .venv && \
  $(UV) export --quiet --frozen --all-extras --output-file .venv/lock.txt && \
  $(UV) pip sync --python .venv --default-index $(MIRROR) --require-hashes .venv/lock.txt

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv
