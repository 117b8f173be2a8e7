# Everything that a person does with this checkout, by name.

PYTHON ?= python3
VENV := .venv
BIN := $(abspath $(VENV))/bin
export LAYERDIFF_PYTHON := $(BIN)/python

.PHONY: test lint rust-lint python-lint rust-test python-test bench-short venv bundle reports clean

# Every test; installs what it needs into the checkout, while the linter compiles.
test:
	$(MAKE) -j2 venv rust-lint
	$(MAKE) python-lint rust-test python-test bench-short

lint: rust-lint python-lint

python-lint: venv
	$(BIN)/ruff check hooks
	$(BIN)/ruff check --config hooks/pyproject.toml tests/html benches
	$(BIN)/ruff format --check --config hooks/pyproject.toml hooks tests/html benches

rust-lint:
	cargo fmt --check
	cargo fmt --check --manifest-path tests/tap/engine/Cargo.toml
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features --lib -- -D warnings
	cargo clippy --no-default-features --features c --lib -- -D warnings

# The ignored tests need PyTorch, which the virtual environment has; those of the page Chromium too, and say so
# where there is none. What they leave, such as models that several tests share, they leave here.
SCRATCH := $(abspath target/tmp/scratch)
rust-test: venv
	rm -rf $(SCRATCH) && mkdir -p $(SCRATCH)
	TMPDIR=$(SCRATCH) cargo test -- --include-ignored
	rm -rf $(SCRATCH)

# The release on Ray is held against that of the command, as the tests in Rust have built it: `cargo build` gives some
# dependencies other features, and compiles them all once more.
python-test: venv
	cargo test --no-run --test release
	LAYERDIFF_BINARY=$(DEBUG)/layerdiff $(BIN)/pytest -q hooks/tests

# That the benches run and agree with themselves; no time is judged.
DEBUG := $(abspath $(or $(CARGO_TARGET_DIR),target))/debug
bench-short: venv
	cargo bench --profile dev --bench compare -- --short --numpy
	cargo bench --profile dev --bench memory -- --short
	cargo bench --profile dev --bench capture -- --short
	$(BIN)/python benches/capture.py --short
	$(BIN)/python benches/scale.py --short --binary $(DEBUG)/layerdiff

venv: $(VENV)/.installed

$(VENV)/.installed: hooks/pyproject.toml hooks/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c hooks/constraints.txt -e 'hooks[dev]'
	touch $@

# The bundled PyTorch trace and floor, anew from the bundled model. Needs `make venv`.
bundle: venv
	hooks/scripts/bundle.sh

# The sample reports over all engines, anew: about an hour and a half. Exit code 1 is a finding, and lattice's
# Q8_0 engine has one.
reports: venv
	cargo run --release -- run --reference torch --engine all --steps 16 \
		--prompts prompts/standard.jsonl --out reports/engines; test $$? -le 1
	cargo run --release -- release --out reports/release; test $$? -le 1

clean:
	rm -rf target $(VENV)
