"""Round what a linear reads to a few bits, as lattice's Q8_0 kernel does before each product.

The weights stay floats: on dequantized weights this gives what an engine with quantized weights
and activations should compute, without that engine.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from layerdiff_hooks.errors import LayerdiffError

BITS = (8,)
_MARK = "layerdiff_activation_bits"


def rounded(x: Tensor, bits: int) -> Tensor:
    """The nearest multiples of one scale for each vector of the last dimension, halves away from 0.

    The scale takes the largest magnitude to the largest code. Every step is one operation in the
    precision of `x`, in lattice's order, so that float32 gives lattice's codes bit for bit.
    """
    limit = 2 ** (bits - 1) - 1
    largest = x.abs().amax(-1, keepdim=True)
    scale = largest / limit
    scaled = x * (1 / scale)
    whole = scaled.trunc()
    codes = whole + scaled.sign() * ((scaled - whole).abs() >= 0.5)
    return torch.where(largest == 0, 0, codes.clamp(-limit, limit) * scale)


@contextmanager
def rounded_activations(model: nn.Module, bits: int) -> Iterator[None]:
    """While active, every `nn.Linear` of `model` rounds its input; hooks see it unrounded.

    Raises:
        LayerdiffError: another number of bits than 8, or a model in half precision.
    """
    if bits not in BITS:
        raise LayerdiffError(f"activations cannot be rounded to {bits} bits", "known: 8")
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for dtype in {linear.weight.dtype for linear in linears} - {torch.float32, torch.float64}:
        raise LayerdiffError(
            f"{dtype} cannot hold activations that are rounded to {bits} bits",
            "use float32 or float64",
        )
    with ExitStack() as stack:
        for linear in linears:
            # Within forward, not by a hook: a hook could come before those that capture.
            stack.callback(delattr, linear, "forward")
            linear.forward = _rounding(linear, bits)
        stack.callback(delattr, model, _MARK)
        setattr(model, _MARK, bits)
        yield


def activation_bits(model: nn.Module) -> int | None:
    """How many bits the model's activations are being rounded to; None where they are not."""
    return getattr(model, _MARK, None)


def _rounding(linear: nn.Linear, bits: int) -> Callable[[Tensor], Tensor]:
    plain = linear.forward

    def forward(input: Tensor) -> Tensor:
        return plain(rounded(input, bits))

    return forward
