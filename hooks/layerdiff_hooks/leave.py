"""How a process ends that is one of several."""

import os
import sys
from typing import NoReturn

# What Python itself ends with when it cannot write out what was printed.
UNWRITTEN = 120


def leave(code: int) -> NoReturn:
    """End this process without taking the interpreter down.

    Threads of a process group may still hold tensors when all is written, whatever has been
    destroyed. One that drops its tensor while the interpreter goes down aborts the process (pytorch
    issue 190489), and torchrun would call a whole trace a failure.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or UNWRITTEN
    os._exit(code)
