#!/usr/bin/env bash
# Makes everything that the binary carries beside the bundled model, from that model.
#
# - reference: PyTorch in 32 bits on the default prompt and on a short one, with four decode steps
# - floors: PyTorch in other precisions on the same tokens, compared with it
# - quantized: PyTorch on the weights that each quantizing engine computes with, on the short prompt
#   only, for their size; where activations are rounded too, with a floor of its own
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=src/bundle
short=instruction-07
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo build --release
layerdiff=${CARGO_TARGET_DIR:-$PWD/target}/release/layerdiff
torch=("$layerdiff" --quiet capture --engine torch)
floor=("$PWD/.venv/bin/python" "$PWD/hooks/scripts/floor.py")

# compare REFERENCE ARM PROMPT OUT: by relative names, so that no path of this machine ends in a report,
# and whatever comes out, since an arm is no candidate.
compare() {
    (cd "$work" && "$layerdiff" --quiet compare "$1" "$2" --prompt "$3" --out "$4" > "$4.log") ||
        test -e "$work/$4/report.json"
}

"${torch[@]}" --model $bundle/model --steps 4 --prompt code-01 --prompt $short --out "$work/reference" > "$work/log"
mkdir -p "$work/floors" "$work/quantized"
for dtype in float64 bfloat16 float16; do
    reports=()
    for prompt in code-01 $short; do
        arm=$dtype-$prompt
        "${torch[@]}" --model $bundle/model --dtype $dtype --prompts "$work/reference" --prompt $prompt --steps 4 \
            --out "$work/$arm" > "$work/log"
        compare reference "$arm" "$prompt" "report-$arm"
        reports+=("$work/report-$arm/report.json")
    done
    "${floor[@]}" "$work/floors/$dtype.json" "${reports[@]}"
done
for engine in lattice-q8 lattice-q8_0 lattice-q4 lattice-quarot-q4; do
    "$layerdiff" dequantize --engine $engine $bundle/model "$work/$engine" > "$work/log"
    arm=("${torch[@]}" --model "$work/$engine" --prompts "$work/reference" --prompt $short --steps 4)
    if [ $engine = lattice-q8_0 ]; then arm+=(--activation-bits 8); fi
    "${arm[@]}" --out "$work/quantized/$engine" > "$work/log"
    if [ $engine = lattice-q8_0 ]; then
        "${arm[@]}" --dtype float64 --out "$work/$engine-float64" > "$work/log"
        compare quantized/$engine $engine-float64 $short report-$engine
        "${floor[@]}" "$work/quantized/$engine.floor.json" "$work/report-$engine/report.json"
    fi
done
for part in reference floors quantized; do
    rm -rf "${bundle:?}/$part"
    mv "$work/$part" $bundle/$part
done
