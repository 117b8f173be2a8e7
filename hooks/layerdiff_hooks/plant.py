"""Known bugs, planted in a running Transformers model: what layerdiff finds can be tried.

The names are those of ``layerdiff faults list``, as far as PyTorch's modules let a fault in:

    with plant(model, "rope-interleaved", layer=2), trace(model, "faulty"):
        model(ids)

Each fault lives in the modules' own computation, below the hooks that capture, so a trace shows
what the faulty model really does, and its self-check holds.
"""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from layerdiff_hooks.architecture import Point, load_architecture
from layerdiff_hooks.errors import LayerdiffError

_MARK = "layerdiff_planted"


@dataclass(frozen=True)
class Site:
    """One decoder layer, the module that its classes are from, and what undoes the fault."""

    layer: nn.Module
    modeling: ModuleType
    points: Sequence[Point]
    shift: float
    stack: ExitStack

    def path(self, op: str) -> str:
        """The module that the layer's first component of this kind is seen in."""
        return next(p.source.module for p in self.points if p.op == op)

    @property
    def attention(self) -> str:
        """The module of the layer's softmax attention."""
        return self.path("attention_scores")

    @property
    def mlp(self) -> str:
        """The module whose last linear reads the activation."""
        return self.path("silu_mul").rpartition(".")[0]

    def forward(self, path: str, wrong: Callable[..., Any]) -> None:
        """Put ``wrong(right, ...)`` in place of a module's forward."""
        module = self.layer.get_submodule(path)
        right, own = module.forward, vars(module).get("forward")
        module.forward = lambda *args, **kwargs: wrong(right, *args, **kwargs)
        if own is None:
            self.stack.callback(delattr, module, "forward")
        else:
            self.stack.callback(setattr, module, "forward", own)

    def attribute(self, path: str, names: tuple[str, ...], value: object) -> None:
        """Give a module another constant, under whichever of the names it has."""
        module = self.layer.get_submodule(path)
        name = next(name for name in names if hasattr(module, name))
        self.stack.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)

    def function(self, name: str, wrong: Callable[..., Any]) -> None:
        """Let the layer's attention call ``wrong(right, ...)`` for a function of its module."""
        home, inside = vars(self.modeling), []
        right = home[name]

        def chosen(*args: object, **kwargs: object) -> object:
            return wrong(right, *args, **kwargs) if inside else right(*args, **kwargs)

        def within(forward: Callable[..., Any], *args: object, **kwargs: object) -> object:
            inside.append(True)
            try:
                return forward(*args, **kwargs)
            finally:
                inside.pop()

        home[name] = chosen
        self.stack.callback(home.__setitem__, name, right)
        self.forward(self.attention, within)


def _epsilon(site: Site, value: float) -> None:
    site.attribute(site.path("rms_norm"), ("variance_epsilon", "eps"), value)


def _norm(site: Site, wrong: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    norm = site.layer.get_submodule(site.path("rms_norm"))
    epsilon = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps

    def forward(_: object, x: Tensor) -> Tensor:
        return wrong(_wide(x), _wide(norm.weight) + site.shift, epsilon).to(x.dtype)

    site.forward(site.path("rms_norm"), forward)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _sum_for_mean(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + epsilon) * gain


def _mean_subtracted(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + epsilon) * gain


def _interleaved(right: Callable[..., Any], q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Any:
    def turned(x: Tensor) -> Tensor:
        pairs = cos.shape[-1] // 2
        c, s = (table[..., :pairs].unsqueeze(1) for table in (cos, sin))
        even, odd = x[..., : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2]
        both = torch.stack((even * c - odd * s, odd * c + even * s), dim=-1).flatten(-2)
        return torch.cat((both, x[..., 2 * pairs :]), dim=-1)

    return turned(q), turned(k)


def _tiled(_: object, states: Tensor, groups: int) -> Tensor:
    return states.repeat(1, groups, 1, 1)


def _mask(site: Site, wrong: Callable[[Tensor], Tensor]) -> None:
    def forward(right: Callable[..., Any], *args: object, **kwargs: Any) -> object:
        mask = kwargs.get("attention_mask")
        # A single token may look at everything, and brings none.
        if isinstance(mask, Tensor):
            kwargs["attention_mask"] = wrong(mask)
        return right(*args, **kwargs)

    site.forward(site.attention, forward)


def _one_more(mask: Tensor) -> Tensor:
    tokens, context = mask.shape[-2:]
    seen = torch.ones(tokens, context, dtype=torch.bool).tril(context - tokens + 1)
    if mask.dtype == torch.bool:
        return mask | seen
    return mask.masked_fill(seen, 0)


def _everything(mask: Tensor) -> Tensor:
    return torch.ones_like(mask) if mask.dtype == torch.bool else torch.zeros_like(mask)


def _swapped(site: Site) -> None:
    mlp = site.layer.get_submodule(site.mlp)

    def forward(_: object, x: Tensor) -> Tensor:
        return mlp.down_proj(mlp.act_fn(mlp.up_proj(x)) * mlp.gate_proj(x))

    site.forward(site.mlp, forward)


def _tail_dropped(site: Site) -> None:
    down = site.layer.get_submodule(site.path("silu_mul"))

    def forward(_: object, x: Tensor) -> Tensor:
        return nn.functional.linear(x[..., :-8], down.weight[:, :-8])

    site.forward(site.path("silu_mul"), forward)


def _skipped_norms(site: Site) -> None:
    inside = f"{site.attention}."
    norms = {p.source.module for p in site.points if p.op == "rms_norm"}
    of_heads = [norm for norm in norms if norm.startswith(inside)]
    if not of_heads:
        raise StopIteration
    for norm in of_heads:
        site.forward(norm, lambda _, x: x)


FAULTS: Mapping[str, Callable[[Site], None]] = {
    "norm-eps-1e-5": lambda site: _epsilon(site, 1e-5),
    "norm-no-eps": lambda site: _epsilon(site, 0.0),
    "norm-sum-for-mean": lambda site: _norm(site, _sum_for_mean),
    "norm-mean-subtracted": lambda site: _norm(site, _mean_subtracted),
    "qk-norm-skipped": _skipped_norms,
    "rope-interleaved": lambda site: site.function("apply_rotary_pos_emb", _interleaved),
    "rope-backwards": lambda site: site.function(
        "apply_rotary_pos_emb", lambda right, q, k, cos, sin: right(q, k, cos, -sin)
    ),
    "rope-key-skipped": lambda site: site.function(
        "apply_rotary_pos_emb", lambda right, q, k, cos, sin: (right(q, k, cos, sin)[0], k)
    ),
    "scores-unscaled": lambda site: site.attribute(site.attention, ("scaling",), 1.0),
    "gqa-tiled": lambda site: site.function("repeat_kv", _tiled),
    "mask-off-by-one": lambda site: _mask(site, _one_more),
    "mask-not-causal": lambda site: _mask(site, _everything),
    "gate-up-swapped": _swapped,
    "gelu-for-silu": lambda site: site.attribute(
        site.mlp, ("act_fn",), nn.GELU(approximate="tanh")
    ),
    "linear-tail-dropped": _tail_dropped,
}


@contextmanager
def plant(model: nn.Module, fault: str, layer: int) -> Iterator[None]:
    """While active, one decoder layer of `model` has the fault; traces of it say so.

    Raises:
        LayerdiffError: an unknown fault, a layer that is not there, one without the modules that
            the fault lives in, or an attention kernel that has it not.
    """
    if fault not in FAULTS:
        close = difflib.get_close_matches(fault, FAULTS, n=1, cutoff=0.0)
        raise LayerdiffError(
            f"no fault {fault!r} can be planted in PyTorch",
            f"did you mean {close[0]!r}? known: {', '.join(sorted(FAULTS))}",
        )
    if getattr(model.config, "_attn_implementation", "eager") not in (None, "eager"):
        raise LayerdiffError(
            f"faults are planted into eager attention, not {model.config._attn_implementation}",
            'model.set_attn_implementation("eager"), or --attention eager',
        )
    architecture = load_architecture(model.config.model_type)
    modeling = sys.modules[architecture.modeling_module]
    kind = getattr(modeling, architecture.decoder_layer)
    layers = [module for module in model.modules() if isinstance(module, kind)]
    if not 0 <= layer < len(layers):
        raise LayerdiffError(f"layer {layer} is not there", f"the model has {len(layers)} layers")
    every = architecture.points(model.config.to_dict())
    points = [point for point in every if point.layer == layer]
    norms = (c for c in architecture.data["component"] if c["op"] == "rms_norm")
    shift = next((c["attrs"]["shift"] for c in norms), 0.0)
    with ExitStack() as stack:
        try:
            FAULTS[fault](Site(layers[layer], modeling, points, shift, stack))
        except (AttributeError, StopIteration):
            raise LayerdiffError(
                f"{fault} cannot live in layer {layer} of this model",
                "it has no module of the kind that the fault changes",
            ) from None
        before = planted(model)
        stack.callback(setattr, model, _MARK, before)
        setattr(model, _MARK, (*before, f"{fault} in layer {layer}"))
        yield


def planted(model: nn.Module) -> tuple[str, ...]:
    """The faults that are planted in the model now, in words."""
    return getattr(model, _MARK, ())
