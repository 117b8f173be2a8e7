"""Noise that the Rust side can repeat: `src/tokens/sampler.rs` holds the same numbers."""

import numpy as np
import pytest
import torch

from layerdiff_hooks.sampler import gumbel_noise, likeliest, sampler


@pytest.mark.parametrize(
    ("seed", "prompt", "step", "token", "expected"),
    [
        (0, "a", 0, 0, -0.5010127438789682),
        (0, "a", 0, 2047, 2.2748015793579546),
        (7, "code-01", 99, 5, 2.86750249173195),
        (2**64 - 1, "code-01", 1, 248319, -0.03666755351515399),
    ],
)
def test_the_noise_is_a_function_of_seed_prompt_step_and_token(
    seed: int, prompt: str, step: int, token: int, expected: float
) -> None:
    assert gumbel_noise(seed, prompt, step, token + 1)[token] == pytest.approx(expected, abs=1e-12)


def test_the_draws_have_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    choose = sampler(0.7, 1, "p")
    counts = np.bincount([choose(logits, step) for step in range(20_000)], minlength=4) / 20_000
    expected = torch.softmax(logits.double() / 0.7, 0).numpy()
    assert np.abs(counts - expected).max() < 5 * 0.5 / np.sqrt(20_000)


def test_without_noise_the_first_of_equals_is_taken() -> None:
    assert likeliest(torch.tensor([1.0, 3.0, 3.0]), 0) == 1
