"""What `trace` shows, that it changes nothing, and that it leaves nothing behind."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import PROMPT, Read, captured, tiny_model
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from transformers import AttentionInterface, DynamicCache, Qwen3_5ForCausalLM
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from layerdiff_hooks import LayerdiffError, trace
from layerdiff_hooks.architecture import load_architecture
from layerdiff_hooks.calls import with_cache
from layerdiff_hooks.self_check import differing_elements

EAGER = "eager_attention_forward"
MODELING = importlib.import_module("transformers.models.qwen3_5.modeling_qwen3_5")
SDPA_UNSEEN = {f"model.layers.3.self_attn.{p}" for p in ("scores", "probs", "attention_mask")}

EXECUTION = {
    "linear_attention": """input_layernorm linear_attn.in_proj_qkv linear_attn.in_proj_z
        linear_attn.in_proj_b linear_attn.in_proj_a linear_attn.conv1d linear_attn.conv_state
        linear_attn.beta linear_attn.decay linear_attn.q_l2norm linear_attn.k_l2norm
        linear_attn.delta_rule linear_attn.recurrent_state linear_attn.norm
        linear_attn.out_proj""",
    "full_attention": """input_layernorm self_attn.q_proj self_attn.query self_attn.q_norm
        self_attn.k_proj self_attn.k_norm self_attn.v_proj self_attn.q_rope self_attn.k_rope
        self_attn.k_cache self_attn.v_cache self_attn.attention_mask self_attn.scores
        self_attn.probs self_attn.context
        self_attn.gate self_attn.gated_context self_attn.o_proj""",
    "both": """post_attention_residual post_attention_layernorm mlp.gate_proj mlp.up_proj
        mlp.act mlp.down_proj""",
}


def expected_order() -> list[str]:
    names = ["model.embed_tokens", "model.rotary_emb.cos", "model.rotary_emb.sin"]
    for i, kind in enumerate(["linear_attention"] * 3 + ["full_attention"]):
        inner = f"{EXECUTION[kind]} {EXECUTION['both']}".split()
        names += [f"model.layers.{i}.{name}" for name in inner] + [f"model.layers.{i}"]
    return [*names, "model.norm", "lm_head"]


def state_of(model: nn.Module) -> list[Any]:
    """All that hooks and patches could leave traces in."""
    hooks = [
        {name: dict(value) for name, value in vars(module).items() if "hooks" in name}
        for module in model.modules()
    ]
    instance = [set(vars(module)) for module in model.modules()]
    interface = (dict(AttentionInterface._global_mapping), dict(ALL_ATTENTION_FUNCTIONS))
    local = dict(ALL_ATTENTION_FUNCTIONS._local_mapping)
    return [hooks, instance, dict(vars(MODELING)), interface, local, modes()]


def modes() -> list[Any]:
    return list(_get_current_function_mode_stack())


@pytest.mark.parametrize("step", [0, 1, 2])
def test_every_point_of_the_description_is_seen_in_the_order_of_execution(
    single: Read, step: int
) -> None:
    assert single.points(step) == expected_order()
    config = tiny_model().config.to_dict()
    described = load_architecture("qwen3_5_text").points(config)
    assert {point.name for point in described} == set(single.points(step))
    seen: set[str] = set()
    inputs = {point.name: point.inputs for point in described}
    for name in single.points(step):
        assert set(inputs[name]) & set(inputs) <= seen, name
        seen.add(name)


def test_each_process_writes_the_trace_of_a_model_that_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerdiff_hooks.capture.is_first", lambda: False)
    assert captured(tiny_model(), tmp_path / "second").entries


@pytest.mark.parametrize(("step", "tokens", "context"), [(0, 70, 70), (1, 1, 71), (2, 1, 72)])
def test_shapes_are_those_of_the_description(
    single: Read, step: int, tokens: int, context: int
) -> None:
    shapes = {
        "model.rotary_emb.cos": [tokens, 4],
        "model.layers.0.linear_attn.in_proj_qkv": [tokens, 80],
        "model.layers.0.linear_attn.conv1d": [tokens, 80],
        "model.layers.0.linear_attn.conv_state": [80, 3],
        "model.layers.0.linear_attn.q_l2norm": [tokens, 2, 8],
        "model.layers.0.linear_attn.beta": [tokens, 4],
        "model.layers.0.linear_attn.delta_rule": [tokens, 4, 12],
        "model.layers.0.linear_attn.recurrent_state": [4, 8, 12],
        "model.layers.0.linear_attn.norm": [tokens, 4, 12],
        "model.layers.3.self_attn.query": [tokens, 4, 16],
        "model.layers.3.self_attn.k_rope": [tokens, 2, 16],
        "model.layers.3.self_attn.k_cache": [context, 2, 16],
        "model.layers.3.self_attn.v_cache": [context, 2, 16],
        "model.layers.3.self_attn.attention_mask": [tokens, context],
        "model.layers.3.self_attn.scores": [4, tokens, context],
        "model.layers.3.self_attn.context": [tokens, 4, 16],
        "model.layers.3.self_attn.gated_context": [tokens, 64],
        "lm_head": [tokens, 61],
    }
    for point, shape in shapes.items():
        assert single.entries[step, point]["shape"] == shape, point


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_with_hooks_are_bit_for_bit_those_without(tmp_path: Path, attention: str) -> None:
    model = tiny_model(attention)
    with torch.no_grad():
        plain = model(PROMPT)
        plain_step = model(torch.tensor([[3]]), **with_cache(model, plain.past_key_values))
        with trace(model, tmp_path / "t", check=True):
            hooked = model(PROMPT)
            hooked_step = model(torch.tensor([[3]]), **with_cache(model, hooked.past_key_values))
    assert differing_elements(plain.logits, hooked.logits) == 0
    assert differing_elements(plain_step.logits, hooked_step.logits) == 0
    read = Read(tmp_path / "t")
    assert read.manifest["self_check"] == {
        "status": "bit-equal",
        "evidence": [
            {
                "what": "logits with hooks equal logits without",
                "entry_point": "model.forward",
                "elements": 71 * 61,
                "mismatches": 0,
            }
        ],
    }
    assert differing_elements(read("lm_head"), plain.logits[0]) == 0
    assert differing_elements(read("lm_head", 1), plain_step.logits[0]) == 0


def test_the_self_check_fails_when_the_numbers_change(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    calls: Iterator[int] = iter(range(100))
    # A probe that is not innocent: each call of the layer adds a little more.
    handle = model.model.layers[1].register_forward_hook(lambda m, a, out: out + 1e-3 * next(calls))
    with (
        pytest.raises(LayerdiffError, match=r"self-check: \d+ of 4270 logits"),
        torch.no_grad(),
        trace(model, tmp_path / "t", check=True),
    ):
        model(PROMPT)
    handle.remove()
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_the_self_check_repeats_each_call_without_taps(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    clean = state_of(model)
    patched: list[bool] = []
    layer = model.model.layers[3].self_attn.k_norm
    layer.register_forward_pre_hook(
        lambda *_: patched.append(MODELING.eager_attention_forward is not clean[2][EAGER])
    )
    with trace(model, tmp_path / "t", check=True):
        output = model(PROMPT[:, :5])
        model(torch.tensor([[3]]), **with_cache(model, output.past_key_values))
    assert patched == [True, False, True, False]


def test_a_local_attention_function_is_put_back(tmp_path: Path) -> None:
    def own(*args: Any, **kwargs: Any) -> Any:
        return AttentionInterface._global_mapping["sdpa"](*args, **kwargs)

    model = tiny_model("sdpa")
    ALL_ATTENTION_FUNCTIONS["sdpa"] = own
    try:
        captured(model, tmp_path / "t", PROMPT[:, :5])
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is own
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def test_differing_elements_counts_bits_and_not_values() -> None:
    nan, zero = torch.tensor([float("nan"), 0.0]), torch.tensor([float("nan"), -0.0])
    assert differing_elements(nan, nan.clone()) == 0
    assert differing_elements(nan, zero) == 1
    assert differing_elements(nan, nan[:1]) == 2


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_hooks_patches_and_modes_are_gone_at_the_end(tmp_path: Path, attention: str) -> None:
    model = tiny_model(attention)
    before = state_of(model)
    with torch.no_grad(), trace(model, tmp_path / "t", check=True):
        assert state_of(model)[2] != before[2] or attention == "sdpa"
        model(PROMPT)
    assert state_of(model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_hooks_patches_and_modes_are_gone_after_an_error_inside_the_model(
    tmp_path: Path, attention: str, error: type[BaseException]
) -> None:
    model = tiny_model(attention)

    def fail(*_: object) -> None:
        raise error

    # Within self_attn, where a function mode is active.
    handle = model.model.layers[3].self_attn.k_norm.register_forward_hook(fail)
    before = state_of(model)
    with pytest.raises(error), trace(model, tmp_path / "t"):
        model(PROMPT)
    assert state_of(model) == before
    handle.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_failed_and_was_caught_leaves_no_trace(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    with (
        pytest.raises(LayerdiffError, match="a call of the model failed"),
        trace(model, tmp_path / "t"),
        pytest.raises(IndexError),
    ):
        model(torch.tensor([[1, 1000]]))
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_the_block_catches_ends_the_watch_at_once(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    model.model.layers[3].self_attn.k_norm.register_forward_hook(fail)
    with (
        pytest.raises(LayerdiffError, match="the call before this one failed"),
        trace(model, tmp_path / "t"),
    ):
        with pytest.raises(ZeroDivisionError):
            model(PROMPT)
        assert modes() == []
        model(PROMPT)
    assert list(tmp_path.iterdir()) == []


def test_under_sdpa_what_the_kernel_hides_is_absent_and_the_rest_is_there(tmp_path: Path) -> None:
    read = captured(tiny_model("sdpa"), tmp_path / "t", steps=1)
    assert set(expected_order()) - set(read.points()) == SDPA_UNSEEN
    # One query sees everything, whoever masks.
    unseen = SDPA_UNSEEN - {"model.layers.3.self_attn.attention_mask"}
    assert set(expected_order()) - set(read.points(1)) == unseen
    assert read("model.layers.3.self_attn.attention_mask", 1).eq(1).all()
    assert read.manifest["provenance"]["attention_implementation"] == "sdpa"


def test_a_cache_holds_the_keys_and_values_of_all_steps(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    read = captured(model, tmp_path / "t", steps=2)
    for cache, source in (("k_cache", "k_rope"), ("v_cache", "v_proj")):
        new = [read(f"model.layers.3.self_attn.{source}", step) for step in range(3)]
        for step in range(3):
            cached = read(f"model.layers.3.self_attn.{cache}", step)
            assert torch.equal(cached.flatten(1), torch.cat(new[: step + 1]).flatten(1)), cache


def test_without_a_cache_its_states_are_absent(tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    with torch.no_grad(), trace(model, tmp_path / "t"):
        model(PROMPT, use_cache=False)
    missing = set(expected_order()) - set(Read(tmp_path / "t").points())
    states = ("conv_state", "recurrent_state")
    assert missing == {f"model.layers.{i}.linear_attn.{s}" for i in range(3) for s in states}


def test_the_states_after_prefill_are_those_that_decoding_starts_with(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    started: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: object, kwargs: dict[str, Any]) -> None:
        # The argument's name is not the same in every version.
        cache = next(value for value in kwargs.values() if isinstance(value, Cache))
        if cache.get_seq_length():
            states = cache.get_conv_state(2), cache.get_recurrent_state(2)
            started.append((states[0].clone(), states[1].clone()))

    linear_attention = model.model.layers[2].linear_attn
    handle = linear_attention.register_forward_pre_hook(note, with_kwargs=True)
    read = captured(model, tmp_path / "t", steps=2)
    handle.remove()
    assert len(started) == 2
    for step, (conv, state) in enumerate(started):
        # The oldest of the four columns is shifted out by the next token.
        assert torch.equal(read("model.layers.2.linear_attn.conv_state", step), conv[0, :, 1:])
        assert torch.equal(read("model.layers.2.linear_attn.recurrent_state", step), state[0])


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 63, 64, 65])
def test_prompts_of_any_length_are_captured_whole(
    tmp_path: Path, model: Qwen3_5ForCausalLM, single: Read, tokens: int
) -> None:
    read = captured(model, tmp_path / "t", PROMPT[:, :tokens])
    assert read.points() == expected_order()
    conv = "model.layers.0.linear_attn.conv1d"
    torch.testing.assert_close(read(conv), single(conv)[:tokens])
    state = read("model.layers.0.linear_attn.conv_state")
    inputs = read("model.layers.0.linear_attn.in_proj_qkv").T
    padded = torch.nn.functional.pad(inputs, (3, 0))
    assert torch.equal(state, padded[:, -3:])


def test_a_tensor_that_is_changed_in_place_later_keeps_its_value(
    tmp_path: Path, model: Qwen3_5ForCausalLM, single: Read
) -> None:
    kept: dict[str, Tensor] = {}

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        kept["out"] = output

    def spoil(module: nn.Module, args: object) -> None:
        kept["out"].fill_(float("nan"))

    norm = model.model.layers[0].post_attention_layernorm
    handles = [
        norm.register_forward_hook(keep),
        # After its last use and before the trace is written.
        model.model.layers[1].register_forward_pre_hook(spoil),
    ]
    read = captured(model, tmp_path / "t")
    for handle in handles:
        handle.remove()
    name = "model.layers.0.post_attention_layernorm"
    assert torch.equal(read(name), single(name))


def test_points_selects_by_pattern(tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    with torch.no_grad(), trace(model, tmp_path / "t", points="model.layers.3.self_attn.s*"):
        model(PROMPT)
    read = Read(tmp_path / "t")
    assert read.points() == ["model.layers.3.self_attn.scores"]
    assert read("model.layers.3.self_attn.scores")[0, 0, 1] == float("-inf")


def test_gradients_do_not_hinder(tmp_path: Path, model: Qwen3_5ForCausalLM, single: Read) -> None:
    with trace(model, tmp_path / "t", check=True):
        output = model(PROMPT)
    output.logits.sum().backward()
    assert model.lm_head.weight.grad is not None
    assert torch.equal(Read(tmp_path / "t")("lm_head"), single("lm_head"))


def test_generate_gives_one_prompt_with_steps(tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    with torch.no_grad(), trace(model, tmp_path / "t", check=True):
        ids = model.generate(
            PROMPT[:, :9],
            attention_mask=torch.ones(1, 9, dtype=torch.long),
            max_new_tokens=4,
            do_sample=False,
            pad_token_id=0,
            logits_to_keep=0,
        )
    read = Read(tmp_path / "t")
    (prompt,) = read.manifest["prompts"]
    assert prompt["token_ids"] == PROMPT[0, :9].tolist()
    # The last generated token is not fed again.
    assert prompt["step_token_ids"] == ids[0, 9:-1].tolist()
    for step in range(4):
        assert read.points(step) == expected_order()


def test_each_call_without_a_filled_cache_is_a_new_prompt(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    prompts = [{"id": "a-1", "category": "code", "text": "x"}, {"id": "b_2.c"}]
    with torch.no_grad(), trace(model, tmp_path / "t", prompts=prompts):
        model(PROMPT[:, :5])
        model(input_ids=PROMPT[:, 5:8], **with_cache(model, DynamicCache(config=model.config)))
    assert Read(tmp_path / "t").manifest["prompts"] == [
        {"id": "a-1", "category": "code", "text": "x", "token_ids": PROMPT[0, :5].tolist()},
        {"id": "b_2.c", "category": None, "text": None, "token_ids": PROMPT[0, 5:8].tolist()},
    ]


def test_a_tokenizer_gives_the_text(tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    class Decoder:
        def decode(self, ids: list[int]) -> str:
            return " ".join(map(str, ids))

    with torch.no_grad(), trace(model, tmp_path / "t", tokenizer=Decoder(), prompt_ids=["p"]):
        model(torch.tensor([[4, 2]]))
    assert Read(tmp_path / "t").manifest["prompts"][0]["text"] == "4 2"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"input_ids": PROMPT.expand(2, -1)}, r"expected input_ids of shape \[1, tokens\]"),
        ({"input_ids": PROMPT[:, :0]}, "no tokens"),
        (
            {"input_ids": PROMPT[:, :3], "attention_mask": torch.tensor([[0, 1, 1]])},
            "hides padding",
        ),
        (
            {"input_ids": PROMPT[:, :3], "attention_mask": torch.zeros(1, 1, 3, 3)},
            "prepared attention mask",
        ),
        ({"inputs_embeds": torch.zeros(1, 3, 32)}, "call the model with input_ids"),
        (
            {"input_ids": PROMPT[:, :3], "position_ids": torch.tensor([[1, 2, 3]])},
            "position_ids are not 0 to 2",
        ),
        ({"input_ids": PROMPT, "logits_to_keep": 1}, r"lm_head: expected shape \[70, 61\]"),
    ],
)
def test_calls_that_a_trace_cannot_hold_are_refused(
    tmp_path: Path, model: Qwen3_5ForCausalLM, kwargs: dict[str, Any], message: str
) -> None:
    before = state_of(model)
    with pytest.raises(LayerdiffError, match=message), trace(model, tmp_path / "t"):
        model(**kwargs)
    assert state_of(model) == before
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_a_cache_that_the_trace_has_not_seen_is_refused(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    cache = model(PROMPT).past_key_values
    with (
        pytest.raises(LayerdiffError, match="holds 70 tokens that this trace has not seen"),
        trace(model, tmp_path / "t"),
    ):
        model(torch.tensor([[3]]), **with_cache(model, cache))
    with (
        pytest.raises(LayerdiffError, match="decodes one token, got 2"),
        trace(model, tmp_path / "t"),
    ):
        model(torch.tensor([[3, 4]]), **with_cache(model, cache))


def test_a_model_in_training_mode_is_refused(tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    with pytest.raises(LayerdiffError, match="training mode"):
        trace(model.train(), tmp_path / "t")


def test_a_trace_without_a_call_is_an_error(tmp_path: Path, model: Qwen3_5ForCausalLM) -> None:
    with pytest.raises(LayerdiffError, match="was not called"), trace(model, tmp_path / "t"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "model.layer.*"}, "no point matches"),
        ({"prompt_ids": ["a b"]}, "not allowed"),
        ({"prompt_ids": [""]}, "not allowed"),
        ({"prompt_ids": ["a", "a"]}, "share an id"),
        ({"model_dir": "/nowhere/at/all"}, "no model directory"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(
    tmp_path: Path, model: Qwen3_5ForCausalLM, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LayerdiffError, match=message):
        trace(model, tmp_path / "t", **options)


def test_more_calls_than_named_prompts_are_refused(
    tmp_path: Path, model: Qwen3_5ForCausalLM
) -> None:
    with (
        pytest.raises(LayerdiffError, match="more calls than the 1 prompts"),
        torch.no_grad(),
        trace(model, tmp_path / "t", prompt_ids=["only"]),
    ):
        model(PROMPT)
        model(PROMPT)


def test_half_precision_is_recorded_as_it_is(tmp_path: Path) -> None:
    read = captured(tiny_model().bfloat16(), tmp_path / "t", PROMPT[:, :20])
    assert read.manifest["provenance"]["dtype"] == "bfloat16"
    assert read.entries[0, "lm_head"]["dtype"] == "BF16"
    # The model itself computes these in float32.
    assert read.entries[0, "model.layers.0.linear_attn.q_l2norm"]["dtype"] == "F32"
    assert read.entries[0, "model.layers.3.self_attn.probs"]["dtype"] == "F32"
    assert read("model.layers.3.self_attn.scores")[0, 0, 1] == float("-inf")


def test_provenance_has_the_agreed_keys(single: Read) -> None:
    provenance = single.manifest["provenance"]
    assert list(provenance) == [
        "engine",
        "engine_version",
        "path",
        "dtype",
        "attention_implementation",
        "cpu_features",
        "host",
        "threads",
        "hashes",
        "libraries",
        "command",
    ]
    assert provenance["engine"] == "torch"
    assert provenance["engine_version"] == torch.__version__
    assert provenance["path"] == "prefill"
    assert provenance["dtype"] == "float32"
    assert provenance["attention_implementation"] == "eager"
    assert provenance["cpu_features"] == sorted(provenance["cpu_features"])
    assert provenance["threads"] == torch.get_num_threads()
    assert provenance["hashes"] == {"weights": None, "tokenizer": None, "config": None}
    assert provenance["command"] is None
    assert single.manifest["self_check"] is None
    assert single.manifest["architecture"] == "qwen3_5"
    assert single.manifest["config"]["hidden_size"] == 32
    json.dumps(single.manifest, allow_nan=False)
