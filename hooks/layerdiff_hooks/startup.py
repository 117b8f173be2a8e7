"""A quicker start of the command, which runs a model once and compiles and trains nothing.

When Transformers is imported it loads `torch._dynamo` for decorators that matter to
`torch.compile` alone, and scipy for the losses of object detectors: together a quarter of what an
import costs. Only the command does without, since it has its process to itself; whoever imports
this package in a program of their own gets all of it.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"
# They mark a function for the compiler, and return it as it is.
MARKS = ("allow_in_graph", "assume_constant_result", "disable", "disallow_in_graph")


class _Marks(ModuleType):
    """Stands in for `torch._dynamo` while modules are imported."""

    def __init__(self) -> None:
        super().__init__(DYNAMO)
        for name in MARKS:
            setattr(self, name, _as_it_is)

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked for is looked up in the real one."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(DYNAMO), name)


def _as_it_is(function: Callable[..., Any] | None = None, **_: object) -> Callable[..., Any]:
    return _as_it_is if function is None else function


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within the block Transformers is imported without `torch._dynamo` and scipy.

    Both can be imported at any later time, and then are what they always are.
    """
    import torch
    import transformers.utils

    with ExitStack() as stack:
        if DYNAMO not in sys.modules:
            stack.enter_context(_with(vars(torch), "_dynamo", _Marks()))
        for name in MARKS:
            stack.enter_context(_with(vars(torch.compiler), name, _as_it_is))
        stack.enter_context(_with(vars(transformers.utils), "is_scipy_available", lambda: False))
        yield


@contextmanager
def _with(home: dict[str, Any], name: str, value: object) -> Iterator[None]:
    """Put something else in the place of a name; what has meanwhile come there stays."""
    missing = object()
    before = home.get(name, missing)
    home[name] = value
    try:
        yield
    finally:
        if home.get(name) is value:
            del home[name]
            if before is not missing:
                home[name] = before
