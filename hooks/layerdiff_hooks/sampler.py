"""Which token comes next: the likeliest, or one drawn with noise that other engines can repeat.

Sampling is the Gumbel-max trick: the token of the largest `logit / T + noise`, where the noise of
each token is a function of seed, prompt, step and token alone. Two engines that draw like this
share their random numbers without sharing a generator. Where their distributions differ by the
total variation TV, they then differ in a token with a probability between TV and 2 TV / (1 + TV)
(Daliri, Musco, Suresh: Coupling without communication and drafter-invariant speculative decoding,
2024).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

Choose = Callable[[Tensor, int], int]
"""Takes the logits of the last position and the number of the step; gives a token."""


def likeliest(logits: Tensor, _step: int) -> int:
    """Take the token of the highest logit, the first one of equals."""
    return int(logits.argmax())


def sampler(temperature: float, seed: int, prompt_id: str) -> Choose:
    """Make the sampler of one prompt."""

    def choose(logits: Tensor, step: int) -> int:
        noise = gumbel_noise(seed, prompt_id, step, logits.shape[-1])
        return int((logits.double().numpy() / temperature + noise).argmax())

    return choose


def gumbel_noise(seed: int, prompt_id: str, step: int, vocab: int) -> NDArray[np.float64]:
    """Gumbel noise for each token: SplitMix64 of a key and the token's number, as a uniform number.

    The key mixes the seed with the FNV-1a hash of the prompt's id, and the step. Shape `[vocab]`.
    """
    key = _mix(_mix((seed ^ _fnv1a(prompt_id.encode())) & _WORD) + step * _GOLDEN & _WORD)
    tokens = np.arange(1, vocab + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = np.uint64(key) + tokens * np.uint64(_GOLDEN)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    uniform = ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return -np.log(-np.log(uniform))


def _mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _WORD
    return x ^ (x >> 31)


def _fnv1a(data: bytes) -> int:
    state = 0xCBF29CE484222325
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 & _WORD
    return state
