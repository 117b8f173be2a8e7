"""Run a model in double precision, also where its code asks for float32.

Norms, softmax, rotary tables and recurrences of Transformers cast to float32 whatever the
model's dtype is. Under `float64_arithmetic` such a request gets float64.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def _widened(value: object) -> object:
    return torch.float64 if value is torch.float32 else value


class _NoFloat32(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        widened = {key: _widened(value) for key, value in (kwargs or {}).items()}
        return func(*map(_widened, args), **widened)


@contextmanager
def float64_arithmetic() -> Iterator[None]:
    """While active, float32 in torch calls, explicit or by default, means float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _NoFloat32():
            yield
    finally:
        torch.set_default_dtype(before)


def to_float64(model: nn.Module) -> nn.Module:
    """Widen a model in place; rotary frequencies are computed anew, not widened.

    Run the model under `float64_arithmetic`.
    """
    model.double()
    with float64_arithmetic():
        for module in model.modules():
            if hasattr(module, "rope_type") and hasattr(module, "original_inv_freq"):
                own = getattr(module, f"compute_{module.rope_type}_rope_parameters", None)
                frequencies, _ = (own or ROPE_INIT_FUNCTIONS[module.rope_type])(module.config)
                module.inv_freq = frequencies
                module.original_inv_freq = frequencies.clone()
    return model
