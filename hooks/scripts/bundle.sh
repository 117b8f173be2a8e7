#!/usr/bin/env bash
# Makes the bundled PyTorch trace and the bundled floor from the bundled model.
#
# The reference is PyTorch in 32 bits on the default prompt. The floor is PyTorch in 64 bits,
# compared with it: the error that 32 bits cost anybody.
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=src/bundle
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo build --release
layerdiff=$PWD/target/release/layerdiff

capture() { # dtype, output
    "$layerdiff" capture --engine torch --dtype "$1" --model "$bundle/model" --prompt code-01 --out "$2"
}

capture float32 "$work/reference"
capture float64 "$work/floor"
# Relative names, so that no path of this machine ends in the report.
(cd "$work" && "$layerdiff" compare reference floor --out report)
rm -rf "$bundle/reference"
mv "$work/reference" "$bundle/reference"
cp "$work/report/report.json" "$bundle/floor.json"
