# Every target works from a fresh clone: what is missing is installed into $(VENV).
# Needs Rust (rustup or a distribution), a C linker and Python 3.10 or newer.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PYTEST_ARGS ?=

# The extension is built against this interpreter, so that changing shells does not rebuild it.
export PYO3_PYTHON := $(BIN)/python
# maturin installs into this environment.
export VIRTUAL_ENV := $(abspath $(VENV))
unexport CONDA_PREFIX

# The extension module links to no libpython, so the test harness cannot link it: its tests are the Python ones.
WORKSPACE := --workspace --exclude fastllm-py

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'maturin>=1.9,<2'
	touch $@

# INSTALLED=1 tests the package that $(VENV) already holds, such as a wheel, and builds nothing.
.PHONY: dev
ifdef INSTALLED
dev:
else
dev: $(VENV)/.created ## Build the package, optimised, into .venv with everything that development needs
	$(BIN)/maturin develop --release --extras dev
endif

.PHONY: check
check: lint test ## All that a change must pass: formatting, lints, types, docs and tests

.PHONY: lint
lint: lint-rust lint-python ## Formatting, lints, types and docs

.PHONY: lint-rust
lint-rust: $(VENV)/.created
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked

.PHONY: lint-python
lint-python: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict python/fastllm
	$(BIN)/python -m mypy.stubtest fastllm._native

.PHONY: test
test: test-rust test-python ## Rust and Python tests

.PHONY: test-rust
test-rust: $(VENV)/.created
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run $(WORKSPACE) --locked; \
	else \
	  echo 'note: cargo-nextest is not installed (see make tools): cargo test runs the Rust tests'; \
	  cargo test $(WORKSPACE) --lib --bins --tests --locked; \
	fi
	cargo test $(WORKSPACE) --doc --locked

.PHONY: test-python
test-python: dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: bench
bench: dev ## Kernels against the roof of this CPU, then the embedded model end to end
	cargo bench -p fastllm-kernels --bench matmul
	$(BIN)/python -m pytest benches --benchmark-enable --benchmark-only

.PHONY: docs
docs: $(VENV)/.created ## Rust API documentation into target/doc
	cargo doc --workspace --no-deps --locked
	@echo 'open target/doc/fastllm_kernels/index.html; the guides are in docs/'

.PHONY: tools
tools: ## cargo-nextest and cargo-fuzz, where they are missing
	cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz

.PHONY: fmt
fmt: dev ## Format everything
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean: ## Delete what was built
	cargo clean
	rm -rf $(VENV) dist
