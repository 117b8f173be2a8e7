"""Copies of what a model computes."""

import torch
from torch import Tensor


def own_copy(tensor: Tensor, value: object) -> Tensor:
    """Contiguous, on the CPU, and sharing memory with nothing: models write in place.

    A layout that computes, and the way from another device, have made a copy of `value` already.
    """
    here = tensor.to("cpu")
    if here.is_contiguous() and not _may_share(here, value):
        return here
    return here.clone(memory_format=torch.contiguous_format)


def _may_share(tensor: Tensor, value: object) -> bool:
    """Whether both may lie in the same memory, or `tensor` holds on to more than its own."""
    memory = tensor.untyped_storage()
    if not isinstance(value, Tensor):
        return False
    if memory.nbytes() != tensor.numel() * tensor.element_size():
        return True
    try:
        return memory.data_ptr() == value.untyped_storage().data_ptr()
    except RuntimeError:
        # The memory of some kinds of tensors is not told.
        return True
