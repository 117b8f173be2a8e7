r"""Train the small LoRA adapter that layerdiff's tests and README use, and export it.

The adapter sits on every linear of every layer of the bundled model, so that both kinds of layers
and all twelve projections are adapted. Its text is the same as that of ``train_small.py``: the
Python standard library of the running interpreter, of which a few dozen steps see a little. The
loss is not the aim; ``lora_B`` must leave zero so far that the adapter's effect is visible at every
point. The same Python, torch, transformers, peft and thread count give the same adapter.

    python hooks/scripts/train_adapter.py --out src/bundle/adapter
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from pathlib import Path

import torch
from layout import write_json, write_tensors
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from tokenizers import Tokenizer
from train_small import batches, build_corpus, encode, loss_of

from layerdiff_hooks.load import load_text_model

TARGETS = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)


def plain(value: object) -> object:
    """A value of the configuration as JSON: sets in order, enumerations by value."""
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", value)


def export(model: torch.nn.Module, config: LoraConfig, out: Path) -> None:
    """Write a PEFT adapter whose bytes depend on the weights only, and that names no machine."""
    out.mkdir(parents=True, exist_ok=True)
    values = {key: plain(value) for key, value in config.to_dict().items()}
    values["base_model_name_or_path"] = "src/bundle/model"
    values["inference_mode"] = True
    values = json.loads(json.dumps(values))
    write_json(out / "adapter_config.json", dict(sorted(values.items())))
    weights = get_peft_model_state_dict(model)
    tensors = {name: w.to(torch.bfloat16).contiguous() for name, w in weights.items()}
    write_tensors(out / "adapter_model.safetensors", tensors)


@torch.no_grad()
def effect(model: torch.nn.Module, ids: torch.Tensor) -> float:
    """How far the adapter moves the logits, in relative L2."""
    model.eval()
    moved = model(input_ids=ids).logits
    with model.disable_adapter():
        base = model(input_ids=ids).logits
    return float((moved - base).norm() / base.norm())


def train(args: argparse.Namespace) -> None:
    """The whole job."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    base = load_text_model(args.model)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.0, target_modules=list(TARGETS)
    )
    model = get_peft_model(base, config)
    corpus = build_corpus(Path(sysconfig.get_paths()["stdlib"]), args.seed)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    ids = encode(tokenizer, corpus.train[: args.documents])
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=args.rate, weight_decay=0.0
    )
    model.train()
    stream = batches(ids, args.length, args.batch, args.seed)
    for step, window in zip(range(1, args.steps + 1), stream, strict=False):
        loss = loss_of(model, window)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    moved = effect(model, torch.from_numpy(ids[None, : args.length]))
    print(f"the adapter moves the logits by {moved:.3f} in relative L2", flush=True)
    export(model, config, args.out)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where the adapter is written")
    parser.add_argument("--model", type=Path, default=Path("src/bundle/model"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--documents", type=int, default=300, help="how many documents are read")
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=20260402)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    train(arguments())
