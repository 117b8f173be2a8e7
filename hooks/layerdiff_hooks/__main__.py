"""``python -m layerdiff_hooks``."""

import os
import signal
import sys
from typing import NoReturn

from layerdiff_hooks.cli import main, stay
from layerdiff_hooks.leave import leave


def _terminated(*_: object) -> NoReturn:
    # Ends like an interrupt, so that an unfinished trace is removed.
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    # layerdiff has more commands for this process than the one on its command line.
    code = stay(sys.argv[1:]) if os.environ.pop("LAYERDIFF_STAY", None) else main()
    # Set by torchrun.
    if "TORCHELASTIC_RUN_ID" in os.environ:
        leave(code)
    sys.exit(code)
