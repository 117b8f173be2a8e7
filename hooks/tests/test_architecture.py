"""Descriptions are data: a second architecture is a TOML file, and sizes are expressions."""

import re
from pathlib import Path

import pytest
import torch
from support import Read
from transformers import LlamaConfig, LlamaForCausalLM

import layerdiff_hooks
from layerdiff_hooks import LayerdiffError, capture, trace
from layerdiff_hooks.architecture import load_architecture
from layerdiff_hooks.calls import with_cache
from layerdiff_hooks.expression import evaluate

PACKAGE = Path(layerdiff_hooks.__file__).parent
CONFIG = {"head_dim": 256, "rope": {"factor": 0.25}, "name": "x", "heads": 8}

LLAMA = """
name = "llama"
model_types = ["llama"]
weight_prefixes = ["model."]

[layers]
count = "num_hidden_layers"
types_key = "layer_types"
interval_default = 1
interval_type = "full_attention"
other_type = "full_attention"

[torch]
module = "transformers.models.llama.modeling_llama"
decoder_layer = "LlamaDecoderLayer"

[dims]
hidden = "hidden_size"
vocab = "vocab_size"
heads = "num_attention_heads"
kv_heads = "num_key_value_heads"
head_dim = "head_dim"

[[component]]
point = "model.embed_tokens"
inputs = []
shape = ["tokens", "hidden"]
torch = { module = "model.embed_tokens", take = "output" }

[[component]]
point = "model.layers.{i}.self_attn.q_rope"
inputs = []
shape = ["tokens", "heads", "head_dim"]
[component.torch]
module = "self_attn"
call = "apply_rotary_pos_emb"
take = "output.0"
layout = "heads_first"

[[component]]
point = "model.layers.{i}.self_attn.attention_mask"
inputs = []
dtype = "U8"
shape = ["tokens", "context"]
torch = { module = "self_attn", call = "attention", take = "input.attention_mask", layout = "mask" }

[[component]]
point = "model.layers.{i}.self_attn.scores"
inputs = []
shape = ["heads", "tokens", "context"]
torch = { module = "self_attn", call = "softmax", take = "input.0", layout = "scores" }

[[component]]
point = "model.layers.{i}"
inputs = []
shape = ["tokens", "hidden"]
torch = { module = "", take = "output" }

[[component]]
point = "lm_head"
inputs = []
shape = ["tokens", "vocab"]
torch = { module = "lm_head", take = "output" }
"""


def llama() -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
    )
    model = LlamaForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    return model


def described(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "llama.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(capture, "load_architecture", lambda kind: load_architecture(kind, folder))


def test_a_second_architecture_is_one_more_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described(tmp_path, LLAMA, monkeypatch)
    model = llama()
    with torch.no_grad(), trace(model, tmp_path / "t", check=True):
        output = model(torch.tensor([[1, 2, 3]]))
        model(torch.tensor([[4]]), **with_cache(model, output.past_key_values))
    read = Read(tmp_path / "t")
    layer = ["self_attn.q_rope", "self_attn.attention_mask", "self_attn.scores"]
    inner = [[f"model.layers.{i}.{n}" for n in layer] + [f"model.layers.{i}"] for i in range(2)]
    expected = ["model.embed_tokens", *inner[0], *inner[1], "lm_head"]
    assert read.points(0) == read.points(1) == expected
    assert read("model.layers.1.self_attn.attention_mask").tolist() == [
        [1, 0, 0],
        [1, 1, 0],
        [1, 1, 1],
    ]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (('module = "lm_head"', 'module = "head"'), "has no module 'head'"),
        (('"apply_rotary_pos_emb"', '"rotate"'), "nor torch has a function 'rotate'"),
        (('"LlamaDecoderLayer"', '"Block"'), "has no Block"),
        (('layout = "heads_first"', 'layout = "upside_down"'), "unknown layout 'upside_down'"),
        (('layout = "heads_first"', 'layout = "state"'), r"expected shape \[3, 4, 4\]"),
        (('["tokens", "vocab"]', '["tokens", "words"]'), "no size 'words'"),
        (('"output.0"', '"output.7"'), "expected a tuple that has 'output.7'"),
        (('"input.attention_mask"', '"input.mask"'), "was called without 'input.mask'"),
        (('hidden = "hidden_size"', 'hidden = "size"'), "no value for 'size'"),
        (('"self_attn", call = "softmax"', '"mlp", call = "silu", nth = 0'), "scores without"),
    ],
)
def test_a_description_that_does_not_fit_is_named_with_its_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, str], message: str
) -> None:
    assert broken[0] in LLAMA
    described(tmp_path, LLAMA.replace(*broken), monkeypatch)
    model = llama()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with pytest.raises(LayerdiffError, match=message), trace(model, tmp_path / "t"):
        model(torch.tensor([[1, 2, 3]]))
    after = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert hooks == after
    assert not (tmp_path / "t").exists()


def test_no_code_names_an_architecture() -> None:
    for file in PACKAGE.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"qwen|llama|linear_attn|self_attn|delta_rule", text, re.I), file


def test_layer_types_follow_the_interval_where_the_configuration_lists_none() -> None:
    architecture = load_architecture("qwen3_5")
    full = ["linear_attention", "linear_attention", "full_attention"]
    config = {"text_config": {"num_hidden_layers": 6, "full_attention_interval": 3}}
    assert architecture.layer_types(config) == full * 2
    config = {"text_config": {"num_hidden_layers": 4}}
    assert architecture.layer_types(config) == ["linear_attention"] * 3 + ["full_attention"]
    config = {"num_hidden_layers": 3, "layer_types": full}
    assert architecture.layer_types(config) == full
    with pytest.raises(LayerdiffError, match="3 layer types for 5 layers"):
        architecture.layer_types({**config, "num_hidden_layers": 5})


def test_an_unknown_model_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LayerdiffError, match="'gpt9'") as caught:
        load_architecture("gpt9")
    assert "qwen3_5" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("expression", "size"),
    [
        ("head_dim", 256),
        ("head_dim * rope.factor / 2", 32),
        ("2 * heads * head_dim + 1", 4097),
        ("heads - 3 * (1 + 1)", 2),
    ],
)
def test_sizes_are_names_numbers_and_four_operators(expression: str, size: int) -> None:
    assert evaluate(expression, CONFIG) == size


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("width", "no value for 'width'"),
        ("rope.theta", "no value for 'rope.theta'"),
        ("head_dim / 3", "not a whole number"),
        ("1 - head_dim", "not a whole number"),
        ("name", "not a number"),
        ("rope", "not a number"),
        ("head_dim ** 2", "cannot read"),
        ("max(1, 2)", "cannot read"),
        ("1 / 0", "divides by zero"),
        ("1 +", "not an expression"),
    ],
)
def test_other_expressions_are_refused(expression: str, message: str) -> None:
    with pytest.raises(LayerdiffError, match=re.escape(message)):
        evaluate(expression, CONFIG)
