"""Tensor parallelism: which points a process has a share of, and how the whole is put together.

Transformers' own plan splits the model. The description's ``[split]`` says of which linear's
output a size of a point's shape counts the heads or channels; the plan says whether a process
computes a share of that linear's output, and so of each point with that size.
"""

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from layerdiff_hooks.architecture import LAYER, Architecture, Point
from layerdiff_hooks.errors import LayerdiffError

# What Transformers' plans call an output of which each process keeps its share, and those that
# are put together at once.
SPLIT = "colwise"
WHOLE = (None, "colwise_gather_output", "colwise_rep", "replicate")


class Shares:
    """How one model is split over the processes of the group."""

    def __init__(
        self, plan: Mapping[str, str], architecture: Architecture, sizes: Mapping[str, int]
    ) -> None:
        """Read the plan.

        Raises:
            LayerdiffError: it splits a linear in a way that nobody here knows, or a size cannot
                be split over so many processes.
        """
        self.world = dist.get_world_size()
        self._sizes = sizes
        self._names: set[str] = set()
        for size, module in architecture.data.get("split", {}).items():
            style = _style(plan, module)
            if style == SPLIT:
                require_divisible(architecture, sizes, self.world)
                self._names.add(size)
            elif style not in WHOLE:
                raise LayerdiffError(
                    f"the tensor parallel plan splits {module} {style!r}, "
                    f"and its output cannot be put together",
                    f"known: {SPLIT}, {', '.join(filter(None, WHOLE))}",
                )
        self._found: dict[str, dict[str, Any]] = {}
        self._mesh: DeviceMesh | None = None

    def axis(self, point: Point) -> int | None:
        """Which axis of the point's tensor a process has a share of; None where it has it all."""
        return next((i for i, size in enumerate(point.shape) if size in self._names), None)

    def own(self, point: Point, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a process's share of a point of this shape."""
        axis = self.axis(point)
        return tuple(n // self.world if i == axis else n for i, n in enumerate(shape))

    def whole(self, point: Point, share: Tensor) -> Tensor:
        """All shares of a point in the order of the processes; all of them must call this."""
        axis = self.axis(point)
        if axis is None:
            return share
        self._mesh = self._mesh or init_device_mesh(share.device.type, (self.world,))
        self.note(point, axis, share.shape[axis])
        split = DTensor.from_local(share.contiguous(), self._mesh, [Shard(axis)], run_check=False)
        return split.full_tensor()

    def size(self, point: Point, axis: int) -> int:
        """How much of an axis of a point's tensor each process has."""
        return self._sizes[point.shape[axis]] // self.world

    def note(self, point: Point, axis: int, share: int) -> None:
        """Say that each process had so much of an axis of a point's tensor."""
        self._found[point.name] = {"axis": axis, "shares": [share] * self.world}

    def provenance(self) -> dict[str, Any]:
        """The manifest's `parallel`, which grows with the points that are seen."""
        return {"processes": self.world, "backend": dist.get_backend(), "split": self._found}


def gathered(value: DTensor, point: Point, shares: Shares | None) -> Tensor:
    """The whole of a value that PyTorch knows to be split; all processes must call this.

    Raises:
        LayerdiffError: it is split along an axis that the description does not know as one.
    """
    axis = shares.axis(point) if shares else None
    if shares and any(isinstance(placement, Shard) for placement in value.placements):
        if axis is None:
            raise LayerdiffError(
                f"{point.name} is split as {value.placements}, along no axis that is described",
                "the description's [split] names the sizes that are split",
            )
        whole = value.full_tensor()
        shares.note(point, axis, shares.size(point, axis))
        return whole
    return value.full_tensor()


def shares_of(
    model: PreTrainedModel, architecture: Architecture, sizes: Mapping[str, int]
) -> Shares | None:
    """How Transformers has split this model; None where it has not.

    Raises:
        LayerdiffError: it is split in another way than by tensor parallelism alone.
    """
    processes = getattr(model, "tp_size", None) or 1
    if processes == 1:
        return None
    if processes != dist.get_world_size():
        raise LayerdiffError(
            f"the model is split over {processes} of {dist.get_world_size()} processes",
            "a trace can be taken of tensor parallelism over all processes, and of nothing else",
        )
    return Shares(model.tp_plan or {}, architecture, sizes)


def require_divisible(architecture: Architecture, sizes: Mapping[str, int], world: int) -> None:
    """Refuse more processes than there is something to split for.

    Raises:
        LayerdiffError: a size that is split is no multiple of the number of processes.
    """
    for size in architecture.data.get("split", {}):
        if sizes[size] % world:
            raise LayerdiffError(
                f"{sizes[size]} {size} cannot be split over {world} processes",
                "start as many as divide " + ", ".join(architecture.data["split"]),
            )


def _style(plan: Mapping[str, str], module: str) -> str | None:
    """The plan's word for a module of a decoder layer."""
    ending = f".layers.{LAYER}.{module}".replace(LAYER, "*")
    return next((style for path, style in plan.items() if f".{path}".endswith(ending)), None)
