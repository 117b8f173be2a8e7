"""Makes the dumps beside this file: python tests/goldens/dumps/make.py [OUT].

Needs layerdiff_hooks. `raw` is what an engine with a bug leaves: PyTorch with interleaved RoPE
pairs in layer 3, its residual stream as raw f32. All other files hold some points of the bundled
reference, in the formats that people use.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[3]
BUNDLE = ROOT / "src/bundle"
PROMPT = "instruction-07"
LAYERS = 8
POINTS = [
    "model.embed_tokens",
    "model.layers.0",
    "model.layers.3.self_attn.q_proj",
    "model.layers.3.self_attn.k_rope",
    "model.layers.3.self_attn.attention_mask",
]


def points(trace: Path, step: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of a step of the prompt, by point."""
    manifest = json.loads((trace / "manifest.json").read_text())
    found = {}
    for shard in manifest["shards"]:
        for key, tensor in load_file(trace / shard["file"]).items():
            prompt, at, point = key.split("/")
            if (prompt, int(at)) == (PROMPT, step):
                found[point] = tensor
    return found


def raw(out: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        trace = Path(work) / "trace"
        command = [
            "-m",
            "layerdiff_hooks",
            "capture",
            "--model",
            BUNDLE / "model",
            "--out",
            trace,
            "--prompt",
            PROMPT,
        ]
        command += [
            "--prompts",
            ROOT / "prompts/standard.jsonl",
            "--plant",
            "rope-interleaved@3",
            "--threads",
            "1",
        ]
        subprocess.run([sys.executable, *command], check=True)
        faulty = points(trace)
    names = {"embed": "model.embed_tokens", "final_norm": "model.norm", "logits": "lm_head"}
    names |= {f"layer_{i}": f"model.layers.{i}" for i in range(LAYERS)}
    out.mkdir()
    for name, point in names.items():
        faulty[point].numpy().astype("<f4").tofile(out / f"{name}.f32")


def formats(out: Path) -> None:
    healthy = points(BUNDLE / "reference")
    chosen = {point: healthy[point] for point in POINTS}
    mask = POINTS[-1]

    # NumPy: C and Fortran order, big-endian, a mask of bool; steps in directories of their own.
    arrays = {point: tensor.numpy() for point, tensor in chosen.items()}
    arrays[POINTS[1]] = np.asfortranarray(arrays[POINTS[1]])
    arrays[POINTS[2]] = arrays[POINTS[2]].astype(">f4")
    arrays[mask] = arrays[mask].astype(bool)
    np.savez_compressed(out / "arrays.npz", **arrays)
    for step in (0, 1):
        (out / f"arrays/step_{step}").mkdir(parents=True)
        np.save(
            out / f"arrays/step_{step}/layer_0.npy",
            points(BUNDLE / "reference", step)["model.layers.0"].numpy(),
        )

    # PyTorch: a transposed view, a part of a larger storage, a batch, a parameter, a nested
    # dictionary, int64.
    tensors = dict(chosen)
    tensors[POINTS[1]] = tensors[POINTS[1]].t().contiguous().t()
    tensors[POINTS[2]] = torch.cat([torch.zeros(3, 512), tensors[POINTS[2]]])[3:]
    tensors[POINTS[0]] = torch.nn.Parameter(tensors[POINTS[0]][None])
    tensors[mask] = tensors[mask].to(torch.int64)
    torch.save({"step_0": tensors, "engine": "mine", "epoch": 3}, out / "tensors.pt")
    torch.save(tensors, out / "legacy.pt", _use_new_zipfile_serialization=False)

    save_file(
        {point: tensor.contiguous() for point, tensor in chosen.items()},
        out / "tensors.safetensors",
    )


def debugger(out: Path) -> None:
    """Transformers' own dump of the bundled model, of its layers only 3, to keep it small."""
    from layerdiff_hooks.load import load_text_model
    from transformers.model_debugging_utils import model_addition_debugger_context

    model = load_text_model(BUNDLE / "model", torch.float32, "eager")
    manifest = json.loads((BUNDLE / "reference/manifest.json").read_text())
    ids = next(prompt["token_ids"] for prompt in manifest["prompts"] if prompt["id"] == PROMPT)
    with model_addition_debugger_context(
        model, debug_path=str(out), use_repr=False, do_prune_layers=False
    ):
        model(torch.tensor([ids]), use_cache=False)
    for path in out.iterdir():
        other_layer = ".layers." in path.name and ".layers.3." not in path.name
        unused = any(
            part in path.name
            for part in ("SUMMARY", "inputs_kwargs_position", "mlp.act_fn", "inputs_args_1")
        )
        if other_layer or unused:
            path.unlink()
    tree = next(out.glob("*_FULL_TENSORS.json"))
    tree.write_text('{"module_path": "the tree itself is not read"}\n')


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    torch.set_num_threads(1)
    raw(target / "raw")
    formats(target)
    debugger(target / "debugger")
