"""Architectures as data: which points a model has and where torch shows each of them.

A description is a TOML file in ``architectures/``. Nothing here knows a particular model.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.expression import evaluate, lookup

LAYER = "{i}"
# The basis of a point that a rotated residual stream does not touch.
ORIGINAL = "original"


@dataclass(frozen=True)
class Source:
    """Where torch shows a value: the `torch` entry of a component.

    Attributes:
        module: path of the module, relative to the decoder layer for a point of a layer.
        take: ``output``, ``output.N``, ``input``, ``input.N`` or ``input.NAME``.
        call: functions called within the module's forward; empty for the module itself.
        nth: which of the calls of one function, counted from 0; None where there is one.
        cache: read this state from the cache, after the call.
        layout: how the value becomes the point's tensor; see `layerdiff_hooks.layout`.
    """

    module: str
    take: str
    call: tuple[str, ...] = ()
    nth: int | None = None
    cache: str | None = None
    layout: str | None = None


@dataclass(frozen=True)
class LowRank:
    """A low-rank update of one linear: inner dimension, factor, and PEFT's name of the adapter."""

    rank: int
    scale: float
    name: str = "default"


@dataclass(frozen=True)
class Point:
    """A named place in a concrete model where a tensor is captured."""

    name: str
    layer: int | None
    shape: tuple[str, ...]
    dtype: str | None
    inputs: tuple[str, ...]
    basis: str
    source: Source
    op: str | None = None


@dataclass(frozen=True)
class Architecture:
    """One parsed description."""

    name: str
    data: Mapping[str, Any]

    @property
    def modeling_module(self) -> str:
        """Name of the Transformers module that holds the model's code."""
        return self.data["torch"]["module"]

    @property
    def decoder_layer(self) -> str:
        """Class name of a decoder layer in that module."""
        return self.data["torch"]["decoder_layer"]

    @property
    def module_prefixes(self) -> tuple[str, ...]:
        """What may stand for the leading ``model.`` of a module path."""
        return tuple(self.data.get("weight_prefixes", ["model."]))

    def canonical(self, path: str) -> str:
        """A module's path with ``model.`` in place of what stands for it in this model."""
        for prefix in sorted(self.module_prefixes, key=len, reverse=True):
            if path.startswith(prefix):
                return "model." + path.removeprefix(prefix)
        return path

    def text_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The part of a configuration that describes the text decoder."""
        section = config.get(self.data.get("config_section", ""))
        return section if isinstance(section, Mapping) else config

    def layer_types(self, config: Mapping[str, Any]) -> list[str]:
        """The type of each decoder layer.

        Raises:
            LayerdiffError: the list of types does not have one for each layer.
        """
        config, layers = self.text_config(config), self.data["layers"]
        count = int(lookup(config, layers["count"]))
        types = config.get(layers.get("types_key", ""))
        if types is None:
            interval = config.get(layers.get("interval_key", "")) or layers["interval_default"]
            types = [
                layers["interval_type"] if (i + 1) % interval == 0 else layers["other_type"]
                for i in range(count)
            ]
        if len(types) != count:
            raise LayerdiffError(f"{len(types)} layer types for {count} layers")
        known = {layers["interval_type"], layers["other_type"]}
        if unknown := sorted(set(types) - known):
            raise LayerdiffError(
                f"unknown layer type: expected {' or '.join(sorted(known))}, got {unknown[0]}"
            )
        return list(types)

    def points(self, config: Mapping[str, Any]) -> list[Point]:
        """All points of a model with this configuration, in the order of the description.

        Components that follow each other and belong to layers are repeated layer by layer.
        """
        types = self.layer_types(config)
        found: list[Point] = []
        block: list[Mapping[str, Any]] = []
        for component in [*self.data["component"], None]:
            if component is not None and LAYER in component["point"]:
                block.append(component)
                continue
            for i, layer_type in enumerate(types):
                found += [
                    _point(c, i) for c in block if c.get("layer_type", layer_type) == layer_type
                ]
            block = []
            if component is not None:
                found.append(_point(component, None))
        return found

    def sizes(self, config: Mapping[str, Any]) -> dict[str, int]:
        """The value of every named size; `tokens` and `context` belong to the step."""
        text, defaults = self.text_config(config), self.data.get("defaults", {})
        return {name: evaluate(size, text, defaults) for name, size in self.data["dims"].items()}

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse a model that differs from the described ones though its type is theirs.

        Raises:
            LayerdiffError: a key of the configuration has another value than the description
                requires.
        """
        text = self.text_config(config)
        for key, wanted in self.data.get("requires", {}).items():
            try:
                got = lookup(text, key)
            except LayerdiffError:
                continue
            if got not in (wanted if isinstance(wanted, list) else [wanted]):
                raise LayerdiffError(
                    f"the description of {self.data['title']} is of other models: "
                    f"expected {key} {wanted!r}, got {got!r}",
                    "a model of that kind needs a description of its own, or more of this one",
                )


def _point(component: Mapping[str, Any], layer: int | None) -> Point:
    def filled(name: str) -> str:
        return name if layer is None else name.replace(LAYER, str(layer))

    entry = dict(component["torch"])
    call = entry.pop("call", ())
    return Point(
        name=filled(component["point"]),
        layer=layer,
        shape=tuple(component["shape"]),
        dtype=component.get("dtype"),
        inputs=tuple(filled(name) for name in component["inputs"]),
        basis=component.get("basis", ORIGINAL),
        source=Source(call=(call,) if isinstance(call, str) else tuple(call), **entry),
        op=component.get("op"),
    )


def adapted(points: Sequence[Point], modules: Mapping[str, LowRank]) -> list[Point]:
    """The points of a model with an adapter on these linears, in the order of execution.

    An adapted linear X has ``X.base_layer``, ``X.lora_A`` and ``X.lora_B`` before X itself.

    Raises:
        LayerdiffError: the adapter changes what is not a linear of the model.
    """
    linears = {point.name for point in points if point.op == "linear"}
    unknown = sorted(modules.keys() - linears)
    if unknown:
        close = difflib.get_close_matches(unknown[0], sorted(linears), n=1, cutoff=0.0)
        hint = f"the nearest linear is {close[0]!r}" if close else None
        raise LayerdiffError(f"the adapter changes {unknown[0]!r}, which no point shows", hint)
    found: list[Point] = []
    for point in points:
        if point.name in modules:
            found += _parts(point, modules[point.name])
        found.append(point)
    return found


def _parts(linear: Point, update: LowRank) -> list[Point]:
    def part(name: str, module: str) -> Point:
        path = f"{linear.source.module}.{module}"
        source = replace(linear.source, module=path)
        return replace(linear, name=f"{linear.name}.{name}", source=source)

    down = part("lora_A", f"lora_A.{update.name}")
    return [
        part("base_layer", "base_layer"),
        replace(down, shape=(*down.shape[:-1], rank_size(update.rank))),
        part("lora_B", f"lora_B.{update.name}"),
    ]


def rank_size(rank: int) -> str:
    """The name of the size of an adapter's inner dimension."""
    return f"rank_{rank}"


def matching(points: list[Point], patterns: str | Sequence[str]) -> set[str]:
    """Names of the points that any of the shell patterns selects; ``*`` also matches dots.

    Raises:
        LayerdiffError: a pattern selects none.
    """
    names = [point.name for point in points]
    found: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        chosen = {name for name in names if fnmatchcase(name, pattern)}
        if not chosen:
            close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
            raise LayerdiffError(
                f"no point matches {pattern!r}", f"did you mean {close[0]!r}?" if close else None
            )
        found |= chosen
    return found


def load_architecture(model_type: str, folder: Traversable | None = None) -> Architecture:
    """The description whose `model_types` name the given one.

    Raises:
        LayerdiffError: no description does.
    """
    folder = folder or resources.files("layerdiff_hooks") / "architectures"
    known: list[str] = []
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        data = _parsed(file.read_text(encoding="utf-8"))
        if model_type in data["model_types"]:
            return Architecture(data["name"], data)
        known += data["model_types"]
    raise LayerdiffError(
        f"no architecture description for model type {model_type!r}",
        f"known model types: {', '.join(known)}; a new architecture is one more TOML file",
    )


@cache
def _parsed(description: str) -> dict[str, Any]:
    # Nobody changes it, and a capture asks for it several times.
    return tomllib.loads(description)
