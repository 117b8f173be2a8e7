"""The basis of a checkpoint whose residual stream is rotated, as lattice's QuaRot leaves it.

The weights themselves are rotated, so that PyTorch runs them as any others; only what the values
of some points mean is another thing, which the trace has to say.
"""

from collections.abc import Mapping
from typing import Any

from layerdiff_hooks.architecture import ORIGINAL, Architecture
from layerdiff_hooks.errors import LayerdiffError

SEED = "quarot_rotation_seed"


def rotated_basis(config: Mapping[str, Any], architecture: Architecture) -> str:
    """What a trace calls the basis of the points that the rotation touches.

    Raises:
        LayerdiffError: the configuration states something that is no seed.
    """
    stated = [part.get(SEED) for part in (architecture.text_config(config), config)]
    seed = next((value for value in stated if value is not None), None)
    if seed is None:
        return ORIGINAL
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise LayerdiffError(
            f"config.json has a bad {SEED}: expected a number from 0 on, got {seed!r}",
            "take config.json from the rotated checkpoint again",
        )
    return f"quarot:{seed}"
