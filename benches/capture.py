"""What it costs to watch PyTorch: each way of it against the same call without a hook, in one run.

    python benches/capture.py                       8 layers of Qwen3.5-0.8B's width, 256 tokens
    python benches/capture.py --dtype bfloat16
    python benches/capture.py --short               small, to see that it runs

Rounds are interleaved and medians are taken. Prints a table in Markdown.
"""

import argparse
import gc
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# As `layerdiff` sets up the process in which it captures PyTorch (src/engine/torch/mod.rs). The
# memory's settings are read when a process starts.
SETTINGS = {
    "OMP_WAIT_POLICY": "passive",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
}
if __name__ == "__main__" and not SETTINGS.keys() <= os.environ.keys():
    os.execve(sys.executable, [sys.executable, *sys.argv], SETTINGS | os.environ)

import torch
import transformers
from torch import Tensor
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig, model_addition_debugger_context

import layerdiff_hooks.capture
from layerdiff_hooks import trace


class Kept:
    """In place of the writer of a trace: keeps all tensors until the end."""

    generated: Mapping[str, Any] | None = None

    def __init__(self, *_: object) -> None:
        """Keep nothing yet."""
        self.tensors: list[Tensor] = []

    @property
    def entries(self) -> int:
        """How many are kept."""
        return len(self.tensors)

    def add(self, prompt: str, step: int, point: str, tensor: Tensor, *_: object) -> None:
        """Keep one more."""
        self.tensors.append(tensor)

    def flush(self) -> None:
        """Nothing is written."""

    def finish(self, prompts: Sequence[Mapping[str, Any]], check: object) -> None:
        """Nothing is written."""

    def abort(self) -> None:
        """Let go of all."""
        self.tensors = []


def model_of(hidden: int, layers: int, dtype: torch.dtype) -> Qwen3_5ForCausalLM:
    """A model with random weights; every fourth layer is of full attention."""
    torch.manual_seed(5)
    config = Qwen3_5TextConfig(
        vocab_size=16 * hidden,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 2,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=hidden // 4,
        linear_value_head_dim=hidden // 4,
        tie_word_embeddings=True,
    )
    model = Qwen3_5ForCausalLM(config).to(dtype).eval()
    model.set_attn_implementation("eager")
    return model


def ways(model: Qwen3_5ForCausalLM, ids: Tensor, work: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by its name; the first is what the others are held against."""
    out = work / "out"
    copied: list[Tensor] = []
    layers = [f"model.layers.{i}" for i in range(model.config.num_hidden_layers)]

    def copies() -> object:
        """A yardstick: the bytes of all points, copied at once after the call."""
        if not copied:
            kept = Kept()
            tensors = kept.tensors
            watched("*", lambda *_: kept)
            copied.extend(tensors)
        output = model(ids)
        return output, [tensor.clone() for tensor in copied]

    def watched(
        points: str | list[str], writer: Callable[..., Any] | None = None, check: bool = False
    ) -> None:
        real = layerdiff_hooks.capture.TraceWriter
        layerdiff_hooks.capture.TraceWriter = writer or real
        try:
            with trace(model, out, points=points, check=check):
                model(ids)
        finally:
            layerdiff_hooks.capture.TraceWriter = real

    def dumped(use_repr: bool) -> None:
        with model_addition_debugger_context(
            model, str(out), do_prune_layers=False, use_repr=use_repr
        ):
            model(input_ids=ids)

    return {
        "no hooks": lambda: model(ids),
        "`output_hidden_states=True`": lambda: model(ids, output_hidden_states=True),
        "layer outputs, to memory": lambda: watched(layers, Kept),
        "layer outputs, to disk": lambda: watched(layers),
        "no hooks, and as many bytes copied": copies,
        "all points, to memory": lambda: watched("*", Kept),
        "all points, to disk": lambda: watched("*"),
        "all points, to disk, with the self-check": lambda: watched("*", check=True),
        "Transformers' debugger, tensors as files": lambda: dumped(use_repr=False),
        "Transformers' debugger, tensors as text": lambda: dumped(use_repr=True),
    }


def seconds_of(work: Callable[[], object], out: Path) -> tuple[float, float, int]:
    """Time and CPU time of one run, and the bytes that it left at `out`, which is removed."""
    gc.collect()
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    shutil.rmtree(out, ignore_errors=True)
    return seconds, cpu_seconds, size


def main() -> None:
    """Time all ways in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    add("--hidden", type=int, default=1024)
    add("--layers", type=int, default=8)
    add("--tokens", type=int, default=256)
    add("--rounds", type=int, default=25)
    add("--short", action="store_true", help="small and once, to see that it runs")
    options = parser.parse_args()
    if options.short:
        options.hidden, options.layers, options.tokens, options.rounds = 64, 4, 16, 1
    # The debugger says where each of its files is.
    logging.disable(logging.INFO)
    transformers.logging.set_verbosity_error()
    model = model_of(options.hidden, options.layers, getattr(torch, options.dtype))
    ids = torch.randint(0, 16 * options.hidden, (1, options.tokens))
    taken: dict[str, list[tuple[float, float]]] = {}
    sizes: dict[str, int] = {}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        todo = ways(model, ids, Path(folder))
        for warm in (True, *[False] * options.rounds):
            for name, way in todo.items():
                *times, sizes[name] = seconds_of(way, Path(folder) / "out")
                if not warm:
                    taken.setdefault(name, []).append((times[0], times[1]))
    print(
        f"{options.layers} layers, hidden {options.hidden}, {options.tokens} tokens, "
        f"{options.dtype}; torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"medians of {options.rounds} rounds\n"
    )
    # The time of a busy machine says little; the CPU time, of all threads, says what was done.
    print("| | seconds | × no hooks | of the rounds | × its CPU time | MB on disk |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, own in taken.items():
        pairs = list(zip(own, taken["no hooks"], strict=True))
        ratios = [one[0] / other[0] for one, other in pairs]
        cpu = statistics.median(one[1] / other[1] for one, other in pairs)
        print(
            f"| {name} | {statistics.median(seconds for seconds, _ in own):.3f} "
            f"| {statistics.median(ratios):.3f} | {min(ratios):.3f}–{max(ratios):.3f} "
            f"| {cpu:.3f} | {sizes[name] / 1e6:.1f} |"
        )


if __name__ == "__main__":
    main()
