# One command for everything; `make help` explains.

# The first Python >= 3.11 found; `make PYTHON=python3.12 …` chooses another.
PYTHON = $(shell for each in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$each" && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for a broker more than they compute, so there are more workers than cores.
WORKERS ?= 4
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install test check demo soak bench prove lock clean python

help: ## Explains the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the interpreter, ARGS='-k restore' narrows \`make test\`,"
	@echo "  SIGNAL_ROUTER_BOOTSTRAP=host:port uses your broker instead of an embedded one."

install: $(VENV)/.installed ## Makes .venv with .venv/bin/signal-router, from pinned versions with hashes

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(MAKE) --no-print-directory python
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "installing pinned packages into $(VENV) (the first time: about 270 MB, most of it a Java runtime)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

python: # Names what is missing, with the fix
	@test -n "$(PYTHON)" && command -v "$(PYTHON)" >/dev/null || { \
		echo "error: Python >= 3.11 is needed, and none was found"; \
		echo "hint: apt install python3 python3-venv (or your system's packages), then: make PYTHON=python3.12 install"; exit 1; } >&2
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: Python >= 3.11 is needed, $(PYTHON) is $$("$(PYTHON)" -V 2>&1)"; \
		echo "hint: make PYTHON=python3.12 install"; exit 1; } >&2
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) has no module venv"; \
		echo "hint: apt install python3-venv (for another version: python3.12-venv)"; exit 1; } >&2

# A run without any test is an error. Tests steal from each other's queues, as some wait for a broker for a minute.
test: install ## Installs, then runs all tests on a real Kafka
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: install ## What CI holds a change to: lint, format, types, layers, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

demo: install ## Tells the whole story on a real Kafka; FAULT=duplicate or FAULT=loss must end red
	@$(BIN)/signal-router demo $(if $(FAULT),--fault $(FAULT)) $(ARGS)

soak: install ## Runs the long forms: a rolling restart at 5,000 signals/s, 40 joins and leaves
	SIGNAL_ROUTER_SOAK_RATE=5000 $(BIN)/python -m pytest -s -n 0 -k restarted tests/integration/test_scaling.py
	SIGNAL_ROUTER_SOAK_CHANGES=40 $(BIN)/python -m pytest -s -n 0 -k join_and_leave tests/integration/test_scaling.py

prove: install ## Proves exactly-once for an hour under every fault; ARGS="--minutes 15 --only kills,wire --json FILE"
	@$(BIN)/python -m prove $(ARGS)

bench: install ## Measures throughput, latency, restart, restore and matching; ARGS are passed on
	@$(BIN)/python -m benchmarks $(ARGS)

lock: ## Writes requirements.lock anew from pyproject.toml; ARGS=--upgrade takes newer versions
	@PYTHON="$(PYTHON)" scripts/lock $(ARGS)

clean: ## Removes .venv and everything generated
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .signal-router
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
