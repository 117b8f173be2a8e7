"""Every value that no module hook shows, recomputed from its formula in float64.

The formulas are written out here once more, from the paper and not from Transformers' code,
and start from the inputs in the trace. In the float64 trace they agree to about 1e-13, which
also proves that nothing in it went through float32.
"""

from itertools import pairwise

import pytest
import torch
from support import PROMPT, Read, tiny_model
from torch import Tensor

LINEAR, FULL = "model.layers.1.linear_attn.", "model.layers.3.self_attn."
STEPS = (0, 1, 2)


@pytest.fixture(params=["single", "double"])
def trace(request: pytest.FixtureRequest) -> Read:
    return request.getfixturevalue(request.param)


def weight(name: str) -> Tensor:
    return tiny_model().get_parameter(name).detach().double()


def close(trace: Read, point: str, expected: Tensor, step: int = 0, factor: float = 1.0) -> None:
    actual = trace(point, step)
    limit = factor * (1e-12 if actual.dtype == torch.float64 else 1e-5)
    error = (actual.double() - expected).norm() / expected.norm()
    assert actual.shape == expected.shape
    assert error < limit, f"{point} step {step}: relative error {error:.1e}"


def seen(trace: Read, point: str, step: int) -> Tensor:
    """All rows of a point from the first token to the last of a step."""
    return torch.cat([trace.wide(point, s) for s in range(step + 1)])


@pytest.mark.parametrize("step", STEPS)
def test_rotary_tables_hold_the_angles_of_the_first_half(trace: Read, step: int) -> None:
    first = 0 if step == 0 else 69 + step
    positions = torch.arange(first, 70 if step == 0 else first + 1, dtype=torch.float64)
    frequencies = 1e7 ** -(torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angles = positions[:, None] * frequencies
    # One rounding of the angle to float32 is position * 6e-8.
    close(trace, "model.rotary_emb.cos", angles.cos(), step)
    close(trace, "model.rotary_emb.sin", angles.sin(), step)


@pytest.mark.parametrize("step", STEPS)
def test_query_and_gate_are_split_within_each_head(trace: Read, step: int) -> None:
    heads = trace(FULL + "q_proj", step).unflatten(-1, (4, 32))
    assert torch.equal(trace(FULL + "query", step), heads[..., :16])
    assert torch.equal(trace(FULL + "gate", step), heads[..., 16:])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("side", ["q", "k"])
def test_rope_turns_pairs_half_the_rotary_width_apart(trace: Read, side: str, step: int) -> None:
    x = trace.wide(FULL + side + "_norm", step)
    cos, sin = (trace.wide(f"model.rotary_emb.{t}", step)[:, None] for t in ("cos", "sin"))
    a, b, rest = x[..., :4], x[..., 4:8], x[..., 8:]
    expected = torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
    close(trace, f"{FULL}{side}_rope", expected, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_mask_lets_a_token_see_itself_and_what_came_before(trace: Read, step: int) -> None:
    mask = trace(FULL + "attention_mask", step)
    assert mask.dtype == torch.uint8
    full = torch.ones(70 + step, 70 + step, dtype=torch.uint8).tril()
    assert torch.equal(mask, full[-mask.shape[0] :])


@pytest.mark.parametrize("step", STEPS)
def test_scores_are_scaled_products_and_minus_infinity_where_forbidden(
    trace: Read, step: int
) -> None:
    q, k = trace.wide(FULL + "q_rope", step), seen(trace, FULL + "k_rope", step)
    scores = torch.einsum("thd,chd->htc", q, k.repeat_interleave(2, dim=1)) / 4
    allowed = (trace(FULL + "attention_mask", step) == 1).expand_as(scores)
    actual = trace(FULL + "scores", step)
    assert torch.equal(actual == float("-inf"), ~allowed)
    error = (actual[allowed].double() - scores[allowed]).norm() / scores[allowed].norm()
    assert error < (1e-12 if actual.dtype == torch.float64 else 1e-5)
    assert trace.entries[step, FULL + "scores"]["derived"] == (step == 0)


@pytest.mark.parametrize("step", STEPS)
def test_probabilities_context_and_gate_follow_from_the_scores(trace: Read, step: int) -> None:
    raised = trace.wide(FULL + "scores", step).exp()
    probs = raised / raised.sum(-1, keepdim=True)
    close(trace, FULL + "probs", probs, step)
    v = seen(trace, FULL + "v_proj", step).unflatten(-1, (2, 16)).repeat_interleave(2, dim=1)
    close(trace, FULL + "context", torch.einsum("htc,chd->thd", probs, v), step)
    gate = 1 / (1 + (-trace.wide(FULL + "gate", step)).exp())
    gated = (trace.wide(FULL + "context", step) * gate).flatten(1)
    close(trace, FULL + "gated_context", gated, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_convolution_sees_the_oldest_tap_first(trace: Read, step: int) -> None:
    inputs = seen(trace, LINEAR + "in_proj_qkv", step)
    padded = torch.cat([torch.zeros(3, inputs.shape[1], dtype=torch.float64), inputs])
    taps = weight(LINEAR + "conv1d.weight")[:, 0]
    rows = trace(LINEAR + "conv1d", step).shape[0]
    expected = sum(padded[i : i + inputs.shape[0]] * taps[:, i] for i in range(4))
    expected = expected / (1 + (-expected).exp())
    close(trace, LINEAR + "conv1d", expected[-rows:], step)
    state = seen(trace, LINEAR + "in_proj_qkv", step)[-3:].T
    assert torch.equal(trace.wide(LINEAR + "conv_state", step), state)


@pytest.mark.parametrize("step", STEPS)
def test_queries_and_keys_have_unit_length_without_the_scale(trace: Read, step: int) -> None:
    query, key, _ = trace.wide(LINEAR + "conv1d", step).split([16, 16, 48], dim=-1)
    for name, x in (("q_l2norm", query), ("k_l2norm", key)):
        x = x.unflatten(-1, (2, 8))
        close(trace, LINEAR + name, x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt(), step)


@pytest.mark.parametrize("step", STEPS)
def test_beta_and_decay_come_from_their_projections(trace: Read, step: int) -> None:
    b, a = trace.wide(LINEAR + "in_proj_b", step), trace.wide(LINEAR + "in_proj_a", step)
    close(trace, LINEAR + "beta", 1 / (1 + (-b).exp()), step)
    soft = (1 + (a + weight(LINEAR + "dt_bias")).exp()).log()
    expected = (-weight(LINEAR + "A_log").exp() * soft).exp()
    # exp(g) turns the relative error of g into |g| times as much.
    close(trace, LINEAR + "decay", expected, step, factor=10)
    assert trace.entries[step, LINEAR + "decay"]["derived"] is True


def recurrence(trace: Read, step: int) -> tuple[Tensor, Tensor]:
    """The delta rule token by token: outputs ``[tokens, 4, 12]`` and the state ``[4, 8, 12]``."""
    q, k = (seen(trace, LINEAR + n, step).repeat_interleave(2, 1) for n in ("q_l2norm", "k_l2norm"))
    v = seen(trace, LINEAR + "conv1d", step)[:, 32:].unflatten(-1, (4, 12))
    beta, decay = (seen(trace, LINEAR + n, step) for n in ("beta", "decay"))
    state = torch.zeros(4, 8, 12, dtype=torch.float64)
    outputs = []
    for t in range(q.shape[0]):
        state = state * decay[t][:, None, None]
        memory = torch.einsum("hkv,hk->hv", state, k[t])
        state = state + torch.einsum("hk,hv->hkv", k[t], (v[t] - memory) * beta[t][:, None])
        outputs.append(torch.einsum("hkv,hk->hv", state, q[t]) * 8**-0.5)
    return torch.stack(outputs), state


@pytest.mark.parametrize("step", STEPS)
def test_the_delta_rule_is_the_recurrence_over_more_than_one_chunk(trace: Read, step: int) -> None:
    outputs, state = recurrence(trace, step)
    rows = trace(LINEAR + "delta_rule", step).shape[0]
    close(trace, LINEAR + "delta_rule", outputs[-rows:], step)
    close(trace, LINEAR + "recurrent_state", state, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_gated_norm_multiplies_an_unshifted_weight(trace: Read, step: int) -> None:
    o = trace.wide(LINEAR + "delta_rule", step)
    z = trace.wide(LINEAR + "in_proj_z", step).unflatten(-1, (4, 12))
    normed = o / (o.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    expected = weight(LINEAR + "norm.weight") * normed * z / (1 + (-z).exp())
    close(trace, LINEAR + "norm", expected, step)


@pytest.mark.parametrize("step", STEPS)
def test_the_residual_stream_adds_up_and_norms_are_shifted(trace: Read, step: int) -> None:
    stream = trace.wide("model.embed_tokens", step)
    if step == 0:
        assert torch.equal(
            stream, trace_dtype(trace, weight("model.embed_tokens.weight")[PROMPT[0]])
        )
    for i, mixer in enumerate(["linear_attn.out_proj"] * 3 + ["self_attn.o_proj"]):
        layer = f"model.layers.{i}"
        close(trace, f"{layer}.input_layernorm", norm(stream, f"{layer}.input_layernorm"), step)
        stream = stream + trace.wide(f"{layer}.{mixer}", step)
        close(trace, f"{layer}.post_attention_residual", stream, step)
        normed = norm(stream, f"{layer}.post_attention_layernorm")
        close(trace, f"{layer}.post_attention_layernorm", normed, step)
        gate, up = (trace.wide(f"{layer}.mlp.{n}_proj", step) for n in ("gate", "up"))
        close(trace, f"{layer}.mlp.act", gate / (1 + (-gate).exp()) * up, step)
        stream = stream + trace.wide(f"{layer}.mlp.down_proj", step)
        close(trace, layer, stream, step)
        stream = trace.wide(layer, step)
    close(trace, "model.norm", norm(stream, "model.norm"), step)
    logits = trace.wide("model.norm", step) @ weight("lm_head.weight").T
    close(trace, "lm_head", logits, step)


def trace_dtype(trace: Read, value: Tensor) -> Tensor:
    return value.to(trace("model.embed_tokens").dtype).double()


def norm(x: Tensor, name: str) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + weight(f"{name}.weight"))


def test_float64_and_float32_differ_by_float32_rounding_only(single: Read, double: Read) -> None:
    floor = (single.wide("lm_head") - double.wide("lm_head")).norm() / double("lm_head").norm()
    assert 1e-9 < floor < 1e-4


def test_layers_are_not_copies_of_each_other(single: Read) -> None:
    outputs = [single(f"model.layers.{i}") for i in range(4)]
    assert not any(torch.equal(one, other) for one, other in pairwise(outputs))
