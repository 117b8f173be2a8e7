"""Captures the bundled model with a bug planted in PyTorch: eps 1e-2 in one norm of layer 5.

The trace is the faulty candidate of the sample report in `reports/planted-norm-eps/`:

    python hooks/scripts/planted_norm_eps.py OUT
    cd src/bundle
    layerdiff compare reference OUT --prompt code-01 --model model --floor floors/float64.json
"""

import json
import sys
from pathlib import Path

import torch

import layerdiff_hooks
from layerdiff_hooks.command import run_prompt
from layerdiff_hooks.load import load_text_model

BUNDLE = Path(__file__).parents[2] / "src" / "bundle"


def main(out: Path) -> None:
    """Runs the reference's prompt and steps on the faulty model."""
    manifest = json.loads((BUNDLE / "reference" / "manifest.json").read_text(encoding="utf-8"))
    prompt = next(prompt for prompt in manifest["prompts"] if prompt["id"] == "code-01")
    model = load_text_model(BUNDLE / "model", torch.float32, attn_implementation="eager").eval()
    model.model.layers[5].post_attention_layernorm.eps = 1e-2
    described = [{"id": prompt["id"], "category": prompt["category"], "text": prompt["text"]}]
    with (
        torch.no_grad(),
        layerdiff_hooks.trace(
            model, out, prompts=described, model_dir=BUNDLE / "model", check=True
        ),
    ):
        forced = prompt["step_token_ids"]
        run_prompt(model, prompt["token_ids"], len(forced), forced)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
