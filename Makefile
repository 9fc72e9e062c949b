# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A CPU-only torch is smaller: point this at an index that offers one.
TORCH_INDEX_URL ?=

.PHONY: setup demo up test test-all check fmt migrate bench

setup: $(STAMP)

# A candidate may be a shim that exists and does not run, or lack venv: each is tried, not looked up.
$(STAMP): pyproject.toml constraints.txt
	@for candidate in "$$PYTHON" python3.13 python3.12 python3.11 python3; do \
		[ -n "$$candidate" ] || continue; \
		"$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		python="$$candidate"; break; \
	done; \
	if [ -z "$${python:-}" ]; then \
		echo "evenkeel needs Python 3.11 or newer with venv: install it (Debian, Ubuntu: apt install python3 python3-venv), or set PYTHON" >&2; exit 1; \
	fi; \
	[ -x $(BIN)/python ] && $(BIN)/python -c '' 2>/dev/null || "$$python" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) torch==$(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

TORCH = $(shell sed -n 's/^torch==//p' constraints.txt)

demo: $(STAMP)
	@$(BIN)/evenkeel demo

up: $(STAMP)
	@exec $(BIN)/evenkeel up

migrate: $(STAMP)
	@$(BIN)/evenkeel migrate

# Three at a time on two cores: half of what the tests do is wait.
test: check
	$(BIN)/pytest -m 'not slow' -n 3 --dist worksteal

test-all: check
	$(BIN)/pytest -n 2 --dist worksteal

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@for file in benchmarks/[!_]*.py; do echo "== $$file"; $(BIN)/python -m benchmarks.$$(basename "$$file" .py) || exit 1; done
