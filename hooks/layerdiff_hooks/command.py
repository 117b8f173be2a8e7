"""The `capture` command: a checkpoint and a prompt file in, a trace out."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from layerdiff_hooks.activations import rounded_activations
from layerdiff_hooks.adapter import put_on, require_adapter
from layerdiff_hooks.architecture import load_architecture, matching
from layerdiff_hooks.calls import with_cache
from layerdiff_hooks.capture import Trace, trace
from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.expression import lookup
from layerdiff_hooks.float64 import float64_arithmetic, to_float64
from layerdiff_hooks.load import CheckpointError, load_text_model
from layerdiff_hooks.plant import plant
from layerdiff_hooks.processes import is_first, joined, started
from layerdiff_hooks.prompts import Prompt, read_prompts, token_ids
from layerdiff_hooks.sampler import Choose, likeliest
from layerdiff_hooks.scores import parse_scores
from layerdiff_hooks.shares import require_divisible
from layerdiff_hooks.writer import require_absent


@dataclass(frozen=True)
class Job:
    """A loaded model, and the prompts that it is to run."""

    model: PreTrainedModel
    prompts: list[Prompt]
    ids: list[list[int]]
    points: str | list[str]
    options: Namespace

    def trace(self, out: Path, prompts: Sequence[Prompt]) -> Trace:
        """Record these prompts, in this order, as a trace at `out`."""
        return trace(
            self.model,
            out,
            points=self.points,
            prompts=[{"id": p.id, "category": p.category, "text": p.text} for p in prompts],
            model_dir=self.options.model,
            adapter_dir=self.options.lora,
            check=True,
            scores=self.options.scores,
        )


def capture(options: Namespace) -> int:
    """Run the command; all that can be refused is refused before the model is loaded.

    Raises:
        LayerdiffError: bad input, or a failed self-check.
    """
    with joined(options), ExitStack() as stack:
        require_absent(options.out)
        job = prepare(options, stack)
        recording = stack.enter_context(job.trace(options.out, job.prompts))
        for number, (prompt, tokens) in enumerate(zip(job.prompts, job.ids, strict=True), start=1):
            before, begin = recording.tensors, time.monotonic()
            decoded = run_prompt(job.model, tokens, options.steps, prompt.forced_ids)
            report(
                options.progress,
                {
                    "event": "prompt",
                    "id": prompt.id,
                    "number": number,
                    "of": len(job.prompts),
                    "tokens": len(tokens),
                    "steps": len(decoded),
                    "tensors": recording.tensors - before,
                    "expected_tensors": recording.expected_points * (1 + len(decoded)),
                    "seconds": round(time.monotonic() - begin, 3),
                },
            )
        talks = is_first()
    if talks:
        print(_summary(options.out, recording, len(job.prompts)))
    return 0


def prepare(options: Namespace, stack: ExitStack) -> Job:
    """Check what was asked for, load the model, and put its arithmetic on `stack`.

    Raises:
        LayerdiffError: bad input.
    """
    transformers.logging.set_verbosity_error()
    parse_scores(options.scores)
    prompts = read_prompts(options.prompts, options.prompt)
    config = _config(options.model)
    architecture = load_architecture(_model_type(config))
    points = options.points or "*"
    if options.lora is None:
        matching(architecture.points(config), points)
    else:
        # Which points an adapter adds is known when it is on the model.
        require_adapter(options.lora)
    vocab = int(lookup(architecture.text_config(config), architecture.data["dims"]["vocab"]))
    ids = token_ids(prompts, options.model, vocab)
    _require_forced(prompts, options.steps)
    if started() > 1:
        require_divisible(architecture, architecture.sizes(config), started())
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = _load(options.model, options.dtype, options.attention)
    if options.lora is not None:
        put_on(model, options.lora)
    if options.dtype == "float64":
        to_float64(model)
        stack.enter_context(float64_arithmetic())
    if options.activation_bits is not None:
        stack.enter_context(rounded_activations(model, options.activation_bits))
    for fault, layer in options.plant:
        stack.enter_context(plant(model, fault, layer))
    stack.enter_context(torch.no_grad())
    return Job(model, prompts, ids, points, options)


def run_prompt(
    model: PreTrainedModel,
    ids: Sequence[int],
    steps: int,
    forced: Sequence[int] | None = None,
    choose: Choose = likeliest,
) -> list[int]:
    """Prefill in one call, then decode with the cache; return the tokens that were fed.

    Without `forced` those that `choose` takes are fed.
    """
    output = model(torch.tensor([list(ids)], device=model.device), use_cache=True)
    fed: list[int] = []
    for step in range(steps):
        token = choose(output.logits[0, -1], step) if forced is None else forced[step]
        fed.append(token)
        cache = with_cache(model, output.past_key_values)
        output = model(torch.tensor([[token]], device=model.device), use_cache=True, **cache)
    return fed


def _config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "config.json"
    if not path.is_file():
        what = "has no config.json" if model_dir.is_dir() else "is not a directory"
        raise LayerdiffError(f"model {model_dir} {what}", "--model takes a checkpoint's directory")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LayerdiffError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise LayerdiffError(f"{path}: expected an object")
    return config


def _model_type(config: dict[str, Any]) -> str:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise LayerdiffError("config.json has no model_type")
    return model_type


def _require_forced(prompts: Sequence[Prompt], steps: int) -> None:
    for prompt in prompts:
        if prompt.forced_ids is not None and len(prompt.forced_ids) < steps:
            raise LayerdiffError(
                f"prompt {prompt.id!r} forces {len(prompt.forced_ids)} tokens, not {steps}",
                "ask for fewer --steps",
            )


def _load(model_dir: Path, dtype: str, attention: str) -> PreTrainedModel:
    # Stored weights are no wider than float32, so float64 starts from there.
    narrow = torch.float32 if dtype == "float64" else getattr(torch, dtype)
    try:
        model = load_text_model(model_dir, narrow, processes=started())
    except CheckpointError as error:
        message, _, hint = str(error).partition("\nhint: ")
        raise LayerdiffError(message, hint or None) from error
    model.set_attn_implementation(attention)
    return model.eval()


def report(progress: str, event: dict[str, Any]) -> None:
    """Tell of a prompt that is done."""
    if not is_first():
        return
    if progress == "json":
        print(json.dumps(event), file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        print(
            f"[{event['number']}/{event['of']}] {event['id']}: {event['tokens']} tokens, "
            f"{event['steps']} steps, {event['tensors']} tensors, {event['seconds']:.1f} s",
            file=sys.stderr,
            flush=True,
        )


def _summary(out: Path, recording: Trace, prompts: int) -> str:
    size = sum(file.stat().st_size for file in out.iterdir())
    plural = "" if prompts == 1 else "s"
    return (
        f"{out}: {prompts} prompt{plural}, {recording.tensors} tensors, {size / 1e6:.1f} MB; "
        "logits with hooks are bit for bit those without"
    )
