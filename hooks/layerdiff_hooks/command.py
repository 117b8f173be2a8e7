"""The `capture` command: a checkpoint and a prompt file in, a trace out."""

import json
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
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
from layerdiff_hooks.prompts import Prompt, read_prompts, token_ids
from layerdiff_hooks.writer import require_absent


def capture(options: Namespace) -> int:
    """Run the command; all that can be refused is refused before the model is loaded.

    Raises:
        LayerdiffError: bad input, or a failed self-check.
    """
    transformers.logging.set_verbosity_error()
    prompts = read_prompts(options.prompts, options.prompt)
    require_absent(options.out)
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
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    with ExitStack() as stack:
        model = _load(options.model, options.dtype, options.attention)
        if options.lora is not None:
            put_on(model, options.lora)
        if options.dtype == "float64":
            to_float64(model)
            stack.enter_context(float64_arithmetic())
        if options.activation_bits is not None:
            stack.enter_context(rounded_activations(model, options.activation_bits))
        stack.enter_context(torch.no_grad())
        described = [{"id": p.id, "category": p.category, "text": p.text} for p in prompts]
        recording = stack.enter_context(
            trace(
                model,
                options.out,
                points=points,
                prompts=described,
                model_dir=options.model,
                adapter_dir=options.lora,
                check=True,
            )
        )
        for number, (prompt, prompt_tokens) in enumerate(zip(prompts, ids, strict=True), start=1):
            before, begin = recording.tensors, time.monotonic()
            decoded = run_prompt(model, prompt_tokens, options.steps, prompt.forced_ids)
            _report(
                options.progress,
                {
                    "event": "prompt",
                    "id": prompt.id,
                    "number": number,
                    "of": len(prompts),
                    "tokens": len(prompt_tokens),
                    "steps": len(decoded),
                    "tensors": recording.tensors - before,
                    "expected_tensors": recording.expected_points * (1 + len(decoded)),
                    "seconds": round(time.monotonic() - begin, 3),
                },
            )
    print(_summary(options.out, recording, len(prompts)))
    return 0


def run_prompt(
    model: PreTrainedModel,
    ids: Sequence[int],
    steps: int,
    forced: Sequence[int] | None = None,
) -> list[int]:
    """Prefill in one call, then decode with the cache; return the tokens that were fed.

    Without `forced` the token of the highest logit is fed, the first one of equals.
    """
    output = model(torch.tensor([list(ids)]), use_cache=True)
    fed: list[int] = []
    for step in range(steps):
        token = int(output.logits[0, -1].argmax()) if forced is None else forced[step]
        fed.append(token)
        cache = with_cache(model, output.past_key_values)
        output = model(torch.tensor([[token]]), use_cache=True, **cache)
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
        model = load_text_model(model_dir, narrow)
    except CheckpointError as error:
        message, _, hint = str(error).partition("\nhint: ")
        raise LayerdiffError(message, hint or None) from error
    model.set_attn_implementation(attention)
    return model.eval()


def _report(progress: str, event: dict[str, Any]) -> None:
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
