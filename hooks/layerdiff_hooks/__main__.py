"""``python -m layerdiff_hooks``."""

import signal
import sys
from typing import NoReturn

from layerdiff_hooks.cli import main


def _terminated(*_: object) -> NoReturn:
    # Ends like an interrupt, so that an unfinished trace is removed.
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())
