"""The `generate` command: one trace for each prompt, so that an interrupted run can go on."""

import os
import sys
import time
from argparse import Namespace
from contextlib import ExitStack

from layerdiff_hooks.command import prepare, report, run_prompt
from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.processes import agreed, joined
from layerdiff_hooks.prompts import decoded
from layerdiff_hooks.sampler import likeliest, sampler


def generate(options: Namespace) -> int:
    """Run the command; interrupted, keep the prompts that are finished."""
    try:
        return _generate(options)
    except KeyboardInterrupt:
        print(f"interrupted; finished prompts stay in {options.out}", file=sys.stderr)
        return 130


def _generate(options: Namespace) -> int:
    """Run all prompts. A prompt whose trace is there already is not run again.

    Raises:
        LayerdiffError: bad input, or a failed self-check.
    """
    if options.temperature is not None and not 0 < options.temperature < float("inf"):
        raise LayerdiffError(
            f"cannot sample at temperature {options.temperature:g}",
            "give a positive number, or leave --temperature out for the likeliest token",
        )
    with joined(options), ExitStack() as stack:
        job = prepare(options, stack)
        try:
            options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LayerdiffError(f"cannot create {options.out}: {error.strerror}") from error
        for number, (prompt, tokens) in enumerate(zip(job.prompts, job.ids, strict=True), start=1):
            target, begin = options.out / prompt.id, time.monotonic()
            known = agreed(os.path.lexists(target))
            if not known:
                choose = likeliest
                if options.temperature is not None:
                    choose = sampler(options.temperature, options.seed, prompt.id)
                with job.trace(target, [prompt]) as recording:
                    fed = run_prompt(job.model, tokens, options.steps, prompt.forced_ids, choose)
                    if fed and prompt.forced_ids is None:
                        recording.said(fed, decoded(fed, options.model))
            report(
                options.progress,
                {
                    "event": "prompt",
                    "id": prompt.id,
                    "number": number,
                    "of": len(job.prompts),
                    "tokens": len(tokens),
                    "steps": options.steps,
                    "tensors": 0,
                    "known": known,
                    "seconds": round(time.monotonic() - begin, 3),
                },
            )
    return 0
