"""One command after the other, each in a process of its own in which everything is imported.

Importing PyTorch and Transformers takes seconds, and layerdiff captures a model several times. This
process imports once and computes nothing; each command is a fork of it, and finds what a fresh
process would.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from itertools import chain

from layerdiff_hooks.startup import without_compiler


def serve(run: Callable[[Sequence[str]], int], first: Sequence[str]) -> int:
    """Run a command, then those on stdin, each a JSON list of arguments on a line.

    At the end of each stands a line of JSON on stderr: `{"ended": EXIT_CODE}`, below zero for the
    signal that ended it.
    """
    with without_compiler():
        import layerdiff_hooks.command
        import layerdiff_hooks.generate  # noqa: F401
    # What every model's module imports, the compiler among it.
    import transformers.generation.utils
    import transformers.masking_utils  # noqa: F401

    commands = (json.loads(line) for line in sys.stdin)
    for arguments in chain([first], commands):
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            return run(arguments)
        ended = {"ended": os.waitstatus_to_exitcode(_wait(child))}
        print(json.dumps(ended), file=sys.stderr, flush=True)
    return 0


def _wait(child: int) -> int:
    """Wait for a command, also when an interrupt reaches both processes."""
    try:
        return os.waitpid(child, 0)[1]
    except KeyboardInterrupt:
        os.waitpid(child, 0)
        raise
