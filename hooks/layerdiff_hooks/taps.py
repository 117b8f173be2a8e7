"""Where values can be seen while a Transformers model runs.

Three kinds of taps, all put in place by `Taps.install` and taken away by `Taps.remove`:

- a module's input or output, by forward hooks;
- a function that a module's forward calls: one of the modeling module's own functions
  (replaced there by name), the attention function (``call = "attention"``), or a torch
  function (seen by a `TorchFunctionMode` that is active within that forward only);
- a state in the cache, right after such a call.
"""

import functools
import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.cache_utils import Cache

from layerdiff_hooks.architecture import Architecture, Point
from layerdiff_hooks.errors import LayerdiffError

ATTENTION = "attention"
# What every modeling module of Transformers calls its registry and its own attention function.
ATTENTION_REGISTRY = "ALL_ATTENTION_FUNCTIONS"
EAGER_FUNCTION = "eager_attention_forward"


@dataclass
class Scope:
    """One running forward of a module whose calls are watched."""

    module: nn.Module
    calls: Mapping[str, Sequence[Point]]
    cache: Cache | None
    mode: TorchFunctionMode | None
    counts: Counter[str] = field(default_factory=Counter)
    allowed: Tensor | None = None


Sink = Callable[[Point, Any, Scope | None], None]


class Taps:
    """Shows each point's value to a sink, in the order of execution."""

    def __init__(
        self,
        model: nn.Module,
        architecture: Architecture,
        points: Sequence[Point],
        attention: str,
        sink: Sink,
        after_layer: Callable[[], None],
    ) -> None:
        """Find the modules; nothing is installed yet.

        Raises:
            LayerdiffError: the description does not fit the model.
        """
        self._model = model
        self._architecture = architecture
        self._points = points
        self._attention = attention
        self._sink = sink
        self._after_layer = after_layer
        self._modeling = importlib.import_module(architecture.modeling_module)
        self._layers = self._find_layers()
        self._scopes: list[Scope] = []
        self._installed = ExitStack()

    def install(self) -> None:
        """Put all taps in place.

        Raises:
            LayerdiffError: a module or function of the description is not there; then no tap
                is left behind.
        """
        with ExitStack() as stack:
            stack.callback(self._leave_all)
            scopes: dict[nn.Module, dict[str, list[Point]]] = {}
            for point in self._points:
                module = self._module(point)
                if point.source.call:
                    calls = scopes.setdefault(module, {})
                    for name in point.source.call:
                        calls.setdefault(name, []).append(point)
                else:
                    self._tap_module(stack, module, point)
            for module, calls in scopes.items():
                self._tap_scope(stack, module, calls)
            for name in sorted({name for calls in scopes.values() for name in calls}):
                self._tap_function(stack, name)
            for layer in self._layers:
                handle = layer.register_forward_hook(lambda *_: self._after_layer())
                stack.callback(handle.remove)
            self._installed = stack.pop_all()

    def remove(self) -> None:
        """Take all taps away; the model and its modules are as before."""
        self._installed.close()

    def _find_layers(self) -> list[nn.Module]:
        kind = getattr(self._modeling, self._architecture.decoder_layer, None)
        if kind is None:
            raise LayerdiffError(
                f"{self._architecture.modeling_module} has no {self._architecture.decoder_layer}",
                "the description may be older or newer than the installed transformers",
            )
        return [module for module in self._model.modules() if isinstance(module, kind)]

    def _module(self, point: Point) -> nn.Module:
        path = point.source.module
        if point.layer is not None:
            if point.layer >= len(self._layers):
                raise LayerdiffError(f"{point.name}: the model has {len(self._layers)} layers")
            base, paths = self._layers[point.layer], [path]
        else:
            base, paths = self._model, [path]
            if path.startswith("model."):
                rest = path.removeprefix("model.")
                paths += [prefix + rest for prefix in self._architecture.module_prefixes]
        for candidate in paths:
            try:
                return base.get_submodule(candidate)
            except AttributeError:
                continue
        raise LayerdiffError(
            f"{point.name}: {type(self._model).__name__} has no module {path!r}",
            "pass the model with its language modeling head",
        )

    def _tap_module(self, stack: ExitStack, module: nn.Module, point: Point) -> None:
        take = point.source.take

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._sink(point, _argument(take, module.forward, args, kwargs), None)

        def after(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            self._sink(point, _result(take, output), None)

        if _is_input(take):
            handle = module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = module.register_forward_hook(after)
        stack.callback(handle.remove)

    def _tap_scope(
        self, stack: ExitStack, module: nn.Module, calls: Mapping[str, Sequence[Point]]
    ) -> None:
        torch_names = frozenset(name for name in calls if not self._is_replaced(name))

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            cache = next((a for a in (*args, *kwargs.values()) if isinstance(a, Cache)), None)
            mode = _TorchFunctions(torch_names, self._called) if torch_names else None
            if mode is not None:
                mode.__enter__()
            self._scopes.append(Scope(module, calls, cache, mode))

        def leave(module: nn.Module, *_: object) -> None:
            if self._scopes and self._scopes[-1].module is module:
                self._leave()

        stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)

    def _leave(self) -> None:
        mode = self._scopes.pop().mode
        if mode is not None:
            mode.__exit__(None, None, None)

    def _leave_all(self) -> None:
        # Only an interrupt leaves scopes open: hooks do not run then.
        while self._scopes:
            self._leave()

    def _is_replaced(self, name: str) -> bool:
        return name == ATTENTION or hasattr(self._modeling, name)

    def _tap_function(self, stack: ExitStack, name: str) -> None:
        if name == ATTENTION:
            self._tap_attention(stack)
        elif hasattr(self._modeling, name):
            self._replace(stack, vars(self._modeling), name, name)
        elif not any(hasattr(home, name) for home in (torch, nn.functional, Tensor)):
            raise LayerdiffError(
                f"neither {self._architecture.modeling_module} nor torch has a function {name!r}"
            )

    def _tap_attention(self, stack: ExitStack) -> None:
        if self._attention == "eager":
            self._replace(stack, vars(self._modeling), EAGER_FUNCTION, ATTENTION)
            return
        registry = getattr(self._modeling, ATTENTION_REGISTRY)
        own = dict(registry._local_mapping)
        original = registry[self._attention]
        registry[self._attention] = self._watched(ATTENTION, original)

        def restore() -> None:
            del registry[self._attention]
            if self._attention in own:
                registry[self._attention] = own[self._attention]

        stack.callback(restore)

    def _replace(self, stack: ExitStack, home: dict[str, Any], name: str, known_as: str) -> None:
        original = home[name]
        home[name] = self._watched(known_as, original)
        stack.callback(home.__setitem__, name, original)

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def watched(*args: object, **kwargs: object) -> object:
            return self._called(name, original, args, kwargs)

        return watched

    def _called(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        scope = self._scopes[-1] if self._scopes else None
        if scope is None or name not in scope.calls:
            return function(*args, **kwargs)
        number = scope.counts[name]
        scope.counts[name] += 1
        points = [p for p in scope.calls[name] if p.source.nth in (None, number)]
        for point in points:
            if point.source.cache is None and _is_input(point.source.take):
                self._sink(point, _argument(point.source.take, function, args, kwargs), scope)
        result = function(*args, **kwargs)
        for point in points:
            if point.source.cache is not None:
                self._sink(point, _cached(point, scope), scope)
            elif not _is_input(point.source.take):
                self._sink(point, _result(point.source.take, result), scope)
        return result


class _TorchFunctions(TorchFunctionMode):
    """Reports the calls of torch functions with one of the given names."""

    def __init__(self, names: frozenset[str], called: Callable[..., Any]) -> None:
        super().__init__()
        self._names = names
        self._report = called

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in self._names:
            return self._report(name, func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_input(take: str) -> bool:
    return take.split(".")[0] == "input"


def _argument(
    take: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The argument that `take` names; torch's builtins have no signature to look it up in."""
    _, _, key = take.partition(".")
    if key in kwargs:
        return kwargs[key]
    position = int(key or 0) if key.isdecimal() or not key else None
    if position is not None and position < len(args):
        return args[position]
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        values = bound.arguments
        return values[key] if position is None else [*values.values()][position]
    except (TypeError, ValueError, KeyError, IndexError):
        if position == 0 and "input" in kwargs:
            return kwargs["input"]
        name = getattr(function, "__qualname__", repr(function))
        raise LayerdiffError(f"{name} was called without {take!r}") from None


def _result(take: str, output: Any) -> Any:
    _, _, key = take.partition(".")
    if not key:
        return output
    if not isinstance(output, tuple | list) or int(key) >= len(output):
        raise LayerdiffError(f"expected a tuple that has {take!r}, got {type(output).__name__}")
    return output[int(key)]


def _cached(point: Point, scope: Scope) -> Tensor | None:
    if scope.cache is None:
        return None
    return getattr(scope.cache, f"get_{point.source.cache}")(point.layer)
