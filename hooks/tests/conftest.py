"""Fixtures that several test files share."""

import pytest
from support import Read, captured, tiny_model
from transformers import Qwen3_5ForCausalLM

from layerdiff_hooks import float64_arithmetic, to_float64


@pytest.fixture
def model() -> Qwen3_5ForCausalLM:
    return tiny_model()


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """70 tokens and two steps in float32."""
    return captured(tiny_model(), tmp_path_factory.mktemp("single") / "trace", steps=2)


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """The same in float64."""
    model = to_float64(tiny_model())
    with float64_arithmetic():
        return captured(model, tmp_path_factory.mktemp("double") / "trace", steps=2)
