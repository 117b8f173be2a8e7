"""The command line. Nothing here needs torch until a command does.

Exit codes: 0 done, 2 bad input or a missing library, 130 interrupted.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from layerdiff_hooks import __version__
from layerdiff_hooks.doctor import examine
from layerdiff_hooks.errors import LayerdiffError, ToldElsewhere

INSTALL_HINT = "install what is missing: pip install torch 'transformers>=5.23' safetensors"

RAY_HINT = "install what is missing: pip install 'layerdiff-hooks[ray]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except LayerdiffError as error:
        return _fail(error.message, error.hint)
    except ToldElsewhere:
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing is left behind", file=sys.stderr)
        return 130


def stay(arguments: Sequence[str]) -> int:
    """Run this command, then more from stdin (see `serve`), and return the exit code."""
    try:
        from layerdiff_hooks.serve import serve

        return serve(main, arguments)
    except ImportError as error:
        return _fail(f"cannot capture: {error}", INSTALL_HINT)


def _fail(message: str, hint: str | None) -> int:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return 2


def _capture(options: argparse.Namespace) -> int:
    try:
        from layerdiff_hooks.startup import without_compiler

        with without_compiler():
            from layerdiff_hooks.command import capture
    except ImportError as error:
        return _fail(f"cannot capture: {error}", INSTALL_HINT)
    return capture(options)


def _generate(options: argparse.Namespace) -> int:
    try:
        from layerdiff_hooks.startup import without_compiler

        with without_compiler():
            from layerdiff_hooks.generate import generate
    except ImportError as error:
        return _fail(f"cannot generate: {error}", INSTALL_HINT)
    return generate(options)


def _release(options: argparse.Namespace) -> int:
    try:
        from layerdiff_hooks.release import release
    except ImportError as error:
        return _fail(f"cannot run a release on Ray: {error}", RAY_HINT)
    try:
        return release(options)
    except KeyboardInterrupt:
        print(f"interrupted; finished parts stay in {options.parts}", file=sys.stderr)
        return 130


def _doctor(options: argparse.Namespace) -> int:
    found = examine()
    if options.json:
        print(json.dumps(found))
    else:
        for name, version in {"python": found["python"], **found["libraries"]}.items():
            print(f"{name:14}{version or 'missing'}")
    if not found["ok"]:
        return _fail("; ".join(found["problems"]), INSTALL_HINT)
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _planted(text: str) -> tuple[str, int]:
    fault, _, layer = text.partition("@")
    return fault, _not_negative(layer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m layerdiff_hooks", description="Capture layerdiff traces from PyTorch."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    capture = commands.add_parser("capture", help="run prompts and write a trace")
    capture.add_argument(
        "--out", type=Path, required=True, metavar="TRACE", help="the trace; must not exist"
    )
    _add_common(capture)
    capture.set_defaults(run=_capture)

    generate = commands.add_parser(
        "generate", help="run prompts and write a trace for each; goes on where it was interrupted"
    )
    add = generate.add_argument
    add(
        "--out", type=Path, required=True, metavar="DIR", help="the traces, each by its prompt's id"
    )
    add("--temperature", type=float, metavar="T", help="sample (default: the likeliest token)")
    add("--seed", type=_not_negative, default=0, metavar="N", help="of the sampling (default 0)")
    _add_common(generate)
    generate.set_defaults(run=_generate)

    release = commands.add_parser(
        "release",
        help="`layerdiff release` with its parts as tasks on Ray",
        usage="%(prog)s --parts URI [options] -- ARGUMENT...",
    )
    add = release.add_argument
    add(
        "--parts",
        required=True,
        metavar="URI",
        help="where the parts are kept as Parquet: a directory, or s3://..., gs://...",
    )
    add("--binary", default="layerdiff", metavar="FILE", help="layerdiff (default: on the path)")
    add("--address", metavar="ADDRESS", help="a Ray cluster (default: one on this machine)")
    add("--cpus", type=_positive, metavar="N", help="tasks at a time, without --address")
    add("--chunk", type=_positive, default=8, metavar="N", help="prompts of a task (default 8)")
    add("--retries", type=_not_negative, default=3, metavar="N", help="of a task (default 3)")
    add("--progress", choices=["auto", "json"], default="auto", help="talk on stderr")
    add("arguments", nargs="*", metavar="ARGUMENT", help="those of `layerdiff release`")
    release.set_defaults(run=_release)

    doctor = commands.add_parser("doctor", help="say whether this Python can capture")
    doctor.add_argument("--json", action="store_true", help="one JSON document on stdout")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Say what both commands take."""
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="checkpoint directory")
    add("--prompts", type=Path, required=True, metavar="FILE", help="prompts, one JSON a line")
    add("--lora", type=Path, metavar="DIR", help="PEFT adapter to put on the model")
    add("--prompt", action="append", default=[], metavar="ID", help="only this prompt; repeatable")
    add(
        "--points",
        action="append",
        metavar="GLOB",
        help="only these points; repeatable (default: all)",
    )
    add(
        "--scores",
        default="auto",
        metavar="all|rows:N|auto",
        help="rows of attention's scores, probabilities and masks to keep of a prefill: those of N "
        "query tokens, or 64 where the context is longer than 2048 (default: auto)",
    )
    add(
        "--dtype",
        choices=["float32", "float64", "bfloat16", "float16"],
        default="float32",
        help="what the model computes in; float64 also replaces its casts to float32",
    )
    add(
        "--attention",
        choices=["eager", "sdpa"],
        default="eager",
        help="sdpa does not show scores and probabilities",
    )
    add(
        "--activation-bits",
        type=int,
        choices=[8],
        metavar="8",
        help="round what each linear reads to 8 bits, one scale a token, as lattice's Q8_0 does",
    )
    add(
        "--plant",
        action="append",
        default=[],
        type=_planted,
        metavar="FAULT@LAYER",
        help="put a known bug into a layer, to see that it is found; repeatable",
    )
    add("--steps", type=_not_negative, default=0, metavar="N", help="tokens to decode (default 0)")
    add("--threads", type=_positive, metavar="N", help="torch threads")
    add(
        "--rank-timeout",
        type=_positive,
        default=600,
        metavar="S",
        help="under torchrun: seconds that a process waits for the others (default 600)",
    )
    add("--progress", choices=["auto", "json"], default="auto", help="talk on stderr")
