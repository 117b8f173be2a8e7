"""That a float64 run holds no float32 anywhere."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from support import PROMPT, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerdiff_hooks import float64_arithmetic, to_float64
from layerdiff_hooks.calls import with_cache


class Watch(TorchDispatchMode):
    """Collects the dtypes of all results, below every Python function."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.dtypes |= {leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        return result


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_no_operation_of_a_float64_run_makes_a_float32_tensor(attention: str) -> None:
    model = to_float64(tiny_model(attention))
    with float64_arithmetic(), Watch() as watch:
        output = model(PROMPT)
        model(torch.tensor([[3]]), **with_cache(model, output.past_key_values))
    assert torch.float64 in watch.dtypes
    assert not watch.dtypes & {torch.float32, torch.bfloat16, torch.float16}


@torch.no_grad()
def test_without_the_arithmetic_a_wide_model_still_computes_in_float32() -> None:
    model = to_float64(tiny_model())
    with Watch() as watch:
        model(PROMPT)
    assert torch.float32 in watch.dtypes


def test_the_default_dtype_is_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), float64_arithmetic():
        assert torch.zeros(1).dtype == torch.float64
        _ = 1 / 0
    assert torch.get_default_dtype() == torch.float32
    assert torch.zeros(1).float().dtype == torch.float32
