"""Capture every intermediate tensor of a Transformers model as a layerdiff trace.

    import layerdiff_hooks

    with layerdiff_hooks.trace(model, "out.trace"):
        model(input_ids)

torch is imported when a name that needs it is first used, so that the command line can say
what is missing where torch is not installed.
"""

from typing import TYPE_CHECKING

from layerdiff_hooks.errors import LayerdiffError

if TYPE_CHECKING:
    from layerdiff_hooks.activations import rounded_activations
    from layerdiff_hooks.capture import trace
    from layerdiff_hooks.float64 import float64_arithmetic, to_float64

__version__ = "0.1.0"
__all__ = [
    "LayerdiffError",
    "__version__",
    "float64_arithmetic",
    "rounded_activations",
    "to_float64",
    "trace",
]

_HOMES = {
    "float64_arithmetic": "float64",
    "rounded_activations": "activations",
    "to_float64": "float64",
    "trace": "capture",
}


def __getattr__(name: str) -> object:
    """Import the module that defines `name` on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
