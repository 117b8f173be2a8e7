#!/usr/bin/env bash
# Makes the bundled PyTorch trace and the bundled floor from the bundled model.
#
# The reference is PyTorch in 32 bits on the default prompt, with four decode steps. The floor is
# PyTorch in 64 bits on the same tokens, compared with it: the error that 32 bits cost anybody.
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=src/bundle
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo build --release
layerdiff=${CARGO_TARGET_DIR:-$PWD/target}/release/layerdiff
torch=("$layerdiff" capture --engine torch --model "$bundle/model" --steps 4)

"${torch[@]}" --prompt code-01 --out "$work/reference"
"${torch[@]}" --dtype float64 --prompts "$work/reference" --out "$work/floor"
# Relative names, so that no path of this machine ends in the report.
(cd "$work" && "$layerdiff" compare reference floor --out report)
rm -rf "$bundle/reference"
mv "$work/reference" "$bundle/reference"
cp "$work/report/report.json" "$bundle/floor.json"
