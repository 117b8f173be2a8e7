"""Several processes that run one model, as torchrun starts them: how they meet and how they end.

Every process does the same, so that all take part in the same collectives in the same order;
only the first writes and talks. When one fails the others end too, and one of them says why.
"""

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from layerdiff_hooks.errors import LayerdiffError, ToldElsewhere

# Set by torchrun.
WORLD_SIZE = "WORLD_SIZE"
# In the store that the processes share: how many have failed.
FAILED = "layerdiff/failed"
# Who is going to fail asks the store once more, and must not wait for one that is gone.
STORE_SECONDS = 10


def started() -> int:
    """How many processes torchrun has started; 1 without it, whatever other launchers set."""
    launched = dist.is_available() and dist.is_torchelastic_launched()
    return int(os.environ[WORLD_SIZE]) if launched else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_first() -> bool:
    """True in the process that writes and talks."""
    return rank() == 0


def agreed(value: object) -> object:
    """What the first process has for `value`, where something outside may differ."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


@contextmanager
def joined(options: Namespace) -> Iterator[None]:
    """Within, the processes that torchrun has started are one group; alone, nothing happens.

    Raises:
        LayerdiffError: what went wrong in this process, or that another is gone.
        ToldElsewhere: another process has said what went wrong.
    """
    world = started()
    if world == 1:
        yield
        return
    timeout = timedelta(seconds=options.rank_timeout)
    store, number, _ = next(dist.rendezvous("env://", timeout=timeout))
    try:
        # Not the store of the collectives: what a process that waits in one cannot hear.
        group = dist.PrefixStore("layerdiff/group", store)
        require_supported(options)
        found = torch.accelerator.current_accelerator(check_available=True)
        device = found or torch.device("cpu")
        dist.init_process_group(
            dist.get_default_backend_for_device(device),
            store=group,
            rank=number,
            world_size=world,
            timeout=timeout,
        )
        yield
    except LayerdiffError as error:
        _tell_once(store)
        message = f"process {number} of {world}: {error.message}"
        raise LayerdiffError(message, error.hint) from error
    except KeyboardInterrupt:
        # torchrun ends the others so when one has failed.
        if _has_failed(store):
            raise ToldElsewhere from None
        raise
    except RuntimeError as error:
        if not _is_of_group(error):
            raise
        _tell_once(store)
        raise LayerdiffError(
            f"process {number} of {world} lost another: {str(error).splitlines()[0]}",
            "one was killed, or took longer than --rank-timeout; nothing is written",
        ) from error
    dist.destroy_process_group()


def _tell_once(store: dist.Store) -> None:
    """Return in the first process that fails; there is one error, not one for each process.

    Raises:
        ToldElsewhere: this is not the first.
    """
    with suppress(RuntimeError):
        store.set_timeout(timedelta(seconds=STORE_SECONDS))
        if store.add(FAILED, 1) > 1:
            raise ToldElsewhere


def _has_failed(store: dist.Store) -> bool:
    with suppress(RuntimeError):
        store.set_timeout(timedelta(seconds=STORE_SECONDS))
        return store.check([FAILED])
    return False


def _is_of_group(error: RuntimeError) -> bool:
    """Whether a collective failed. Gloo's own errors have no class, but the place in its source."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def require_supported(options: Namespace) -> None:
    """Refuse what changes modules that Transformers has split.

    Raises:
        LayerdiffError: such an option was given.
    """
    refused = {
        "--lora": options.lora is not None,
        "--activation-bits": options.activation_bits is not None,
        "--plant": bool(options.plant),
    }
    for name in [name for name, given in refused.items() if given]:
        raise LayerdiffError(f"{name} needs the whole model in one process", "run without torchrun")
