"""`trace`: a context manager that writes what a model computes as a layerdiff trace."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from layerdiff_hooks.activations import activation_bits
from layerdiff_hooks.adapter import adapter_of
from layerdiff_hooks.architecture import (
    ORIGINAL,
    Point,
    adapted,
    load_architecture,
    matching,
    rank_size,
)
from layerdiff_hooks.calls import Call, read_call
from layerdiff_hooks.copies import own_copy
from layerdiff_hooks.errors import LayerdiffError
from layerdiff_hooks.layout import Surroundings, absent_mask, lay_out
from layerdiff_hooks.plant import planted
from layerdiff_hooks.processes import is_first
from layerdiff_hooks.provenance import provenance
from layerdiff_hooks.recorded import Decoder, Recorded
from layerdiff_hooks.rotation import rotated_basis
from layerdiff_hooks.scores import has_rows, parse_scores, take_rows
from layerdiff_hooks.self_check import SelfCheck, independent_arguments, logits_of
from layerdiff_hooks.shares import gathered, shares_of
from layerdiff_hooks.taps import Scope, Taps
from layerdiff_hooks.writer import Silent, TraceWriter


def trace(
    model: PreTrainedModel,
    out: str | Path,
    *,
    points: str | Sequence[str] = "*",
    prompt_ids: Sequence[str] | None = None,
    prompts: Sequence[Mapping[str, Any]] | None = None,
    tokenizer: Decoder | None = None,
    model_dir: str | Path | None = None,
    adapter_dir: str | Path | None = None,
    check: bool = False,
    scores: str = "auto",
) -> "Trace":
    """Record the calls of `model` within the ``with`` block as a trace at `out`.

    A call without a filled cache is a new prompt; a call with one is the next step of the same
    prompt. The trace appears when the block ends without an error, and not at all otherwise.

    Args:
        model: a causal language model in eval mode whose architecture is described; one LoRA
            adapter of PEFT may be on it (of a PeftModel: its `get_base_model()`).
        out: the trace's directory; must not exist.
        points: shell pattern, or several, of the points to keep; ``*`` also matches dots.
        prompt_ids: ids of the prompts in the order of calls; ``prompt-1``, … without.
        prompts: the same with more: mappings with `id` and optionally `category` and `text`.
        tokenizer: gives a prompt its text where `prompts` does not.
        model_dir: the checkpoint, for its hashes; without, where the model says it is from.
        adapter_dir: the adapter's directory, for its hash.
        check: repeat each call without hooks, and fail unless the logits are bit for bit equal.
        scores: rows of attention's scores, probabilities and masks to keep of a prefill: ``all``,
            ``rows:N`` (of N query tokens, evenly chosen, with the first and the last) or ``auto``
            (all up to a context of 2048 tokens, else 64).

    Raises:
        LayerdiffError: now if the arguments do not fit; in the block if a call cannot be
            recorded; at its end if there is nothing to write.
    """
    if prompts is not None and prompt_ids is not None:
        raise LayerdiffError("give prompts or prompt_ids, not both")
    described = None
    if prompts is not None or prompt_ids is not None:
        described = [dict(p) for p in prompts or [{"id": name} for name in prompt_ids or []]]
    folder = Path(adapter_dir) if adapter_dir is not None else None
    return Trace(model, Path(out), points, described, tokenizer, model_dir, check, folder, scores)


class Trace:
    """A trace in the making; see `trace`."""

    def __init__(
        self,
        model: PreTrainedModel,
        out: Path,
        points: str | Sequence[str],
        prompts: list[dict[str, Any]] | None,
        tokenizer: Decoder | None,
        model_dir: str | Path | None,
        check: bool,
        adapter_dir: Path | None = None,
        scores: str = "auto",
    ) -> None:
        """Prepare everything that does not touch the model or the disk."""
        if model.training:
            raise LayerdiffError("the model is in training mode", "call model.eval() first")
        if hasattr(model, "get_base_model"):
            raise LayerdiffError(
                "hooks on a PeftModel see no call", "trace and call model.get_base_model()"
            )
        self._recorded = Recorded(prompts, tokenizer)
        self._model = model
        self._out = out
        self._model_dir = _directory(model, model_dir)
        self._architecture = load_architecture(model.config.model_type)
        config = model.config.to_dict()
        decoder = getattr(model.config, "get_text_config", lambda: model.config)()
        self._attention = getattr(decoder, "_attn_implementation", None) or "eager"
        self._architecture.check(config)
        self._sizes = self._architecture.sizes(config)
        self._shares = shares_of(model, self._architecture, self._sizes)
        self._rotated = rotated_basis(self._config(), self._architecture)
        every = self._architecture.points(config)
        self._adapter = adapter_of(model, self._architecture, adapter_dir)
        if self._adapter is not None:
            every = adapted(every, self._adapter.modules)
            self._sizes |= {rank_size(u.rank): u.rank for u in self._adapter.modules.values()}
        self._wanted = matching(every, points)
        self._scores = parse_scores(scores)
        self._taps = Taps(
            model, self._architecture, every, self._attention, self._see, self._end_layer
        )
        self._check = SelfCheck() if check else None
        self._call: Call | None = None
        self._rerunning = False
        self._again: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._writer: TraceWriter | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._seconds = 0.0

    def said(self, token_ids: Sequence[int], text: str | None) -> None:
        """Note what the model went on with after the only prompt, and how long that took.

        The time is that of the calls without hooks, which are made with `check` only.
        """
        if self._writer is not None:
            self._writer.generated = {
                "token_ids": list(token_ids),
                "text": text,
                "seconds": round(self._seconds, 6),
            }

    @property
    def tensors(self) -> int:
        """How many tensors were recorded so far."""
        return self._writer.entries if self._writer else 0

    @property
    def expected_points(self) -> int:
        """How many points each step could show."""
        return len(self._wanted)

    def __enter__(self) -> Self:
        """Put the hooks in place."""
        # Of a model that is split the first process writes; others have models of their own.
        silent = self._shares is not None and not is_first()
        self._writer = (Silent if silent else TraceWriter)(
            self._out,
            self._architecture.name,
            self._config(),
            provenance(
                self._model.dtype,
                self._attention,
                self._model_dir,
                activation_bits(self._model),
                self._adapter,
                planted(self._model),
                self._shares.provenance() if self._shares else None,
            ),
            self._adapter.manifest() if self._adapter else None,
        )
        try:
            self._taps.install()
            self._handles = [
                self._model.register_forward_pre_hook(self._begin, with_kwargs=True),
                self._model.register_forward_hook(self._end, with_kwargs=True),
            ]
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove every hook; write the trace unless the block failed."""
        writer = self._writer
        try:
            self._unhook()
            if kind is None and writer is not None:
                if self._call is not None:
                    raise LayerdiffError("a call of the model failed, so no trace is written")
                prompts = self._recorded.prompts
                if not prompts:
                    raise LayerdiffError("the model was not called, so there is no trace")
                writer.finish(prompts, self._check.report() if self._check else None)
        finally:
            self._close()

    def _unhook(self) -> None:
        self._taps.remove()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _close(self) -> None:
        self._unhook()
        if self._writer is not None:
            self._writer.abort()

    def _config(self) -> dict[str, Any]:
        file = self._model_dir / "config.json" if self._model_dir else None
        if file is not None and file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        return json.loads(self._model.config.to_json_string(use_diff=False))

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._rerunning:
            return
        if self._call is not None:
            raise LayerdiffError(
                "the call before this one failed", "leave the trace and start anew"
            )
        call = read_call(model, args, kwargs)
        self._recorded.begin(call)
        self._call = call
        if self._check is not None:
            self._again = (args, independent_arguments(kwargs))

    def _end(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> None:
        if self._rerunning or self._writer is None:
            return
        self._writer.flush()
        if self._check is not None and self._again is not None:
            self._check.compare(logits_of(output), self._rerun)
        self._call = None

    def _rerun(self) -> Tensor:
        args, kwargs = self._again or ((), {})
        self._again = None
        self._rerunning = True
        self._taps.remove()
        begin = time.monotonic()
        try:
            return logits_of(self._model(*args, **kwargs))
        finally:
            self._seconds += time.monotonic() - begin
            self._rerunning = False
            self._taps.install()

    def _end_layer(self) -> None:
        if self._writer is not None and self._call is not None:
            self._writer.flush()

    def _see(self, point: Point, value: object, scope: Scope | None) -> None:
        """Record one value; None means that this run does not show the point."""
        if self._call is None or self._writer is None:
            return
        needed = point.source.layout == "mask"
        if point.name not in self._wanted and not needed:
            return
        stored, derived = self._laid_out(point, value, scope)
        if stored is None:
            return
        if needed and scope is not None:
            scope.allowed = stored
        if point.name in self._wanted:
            prompt, step = self._recorded.place
            basis = ORIGINAL if point.basis == ORIGINAL else self._rotated
            own = own_copy(stored, value)
            rows = self._rows(point)
            self._writer.add(prompt, step, point.name, own, derived, basis, rows)

    def _laid_out(
        self, point: Point, value: object, scope: Scope | None
    ) -> tuple[Tensor | None, bool]:
        shares, expected = self._shares, self._shape(point)
        if isinstance(value, DTensor):
            value, shares = gathered(value, point, shares), None
        near = Surroundings(
            expected=shares.own(point, expected) if shares else expected,
            allowed=scope.allowed if scope else None,
            kernel_masks=self._attention != "eager",
        )
        if value is None:
            return (absent_mask(near) if point.source.layout == "mask" else None), False
        if not isinstance(value, Tensor):
            raise LayerdiffError(f"{point.name}: expected a tensor, got {type(value).__name__}")
        try:
            # Before the layout, which would make another matrix of all rows.
            value = take_rows(value.detach(), self._rows(point), len(self._call.token_ids))
            stored, derived = lay_out(value, point.source.layout, near)
        except LayerdiffError as error:
            hint = error.hint or f"the description says [{', '.join(point.shape)}]"
            if "vocab" in point.shape:
                hint += "; generate() computes the last logits only, unless logits_to_keep=0"
            raise LayerdiffError(f"{point.name}: {error.message}", hint) from error
        if point.dtype == "U8" and stored.dtype != torch.uint8:
            raise LayerdiffError(f"{point.name}: expected U8, got {stored.dtype}")
        return shares.whole(point, stored) if shares else stored, derived

    def _shape(self, point: Point) -> tuple[int, ...]:
        call = self._call
        assert call is not None
        tokens = len(call.token_ids)
        sizes = {**self._sizes, "tokens": tokens, "context": call.past + tokens}
        unknown = [name for name in point.shape if name not in sizes]
        if unknown:
            raise LayerdiffError(f"{point.name}: the description has no size {unknown[0]!r}")
        rows = self._rows(point)
        if rows is not None:
            sizes["tokens"] = len(rows)
        return tuple(sizes[name] for name in point.shape)

    def _rows(self, point: Point) -> list[int] | None:
        """The query tokens whose rows are kept of a point that has one for each; None for all."""
        call = self._call
        if call is None or not has_rows(point.shape):
            return None
        tokens = len(call.token_ids)
        return self._scores.rows(tokens, call.past + tokens)


def _directory(model: PreTrainedModel, given: str | Path | None) -> Path | None:
    if given is not None:
        if not Path(given).is_dir():
            raise LayerdiffError(f"no model directory {given}")
        return Path(given)
    name = getattr(model.config, "_name_or_path", None) or getattr(model, "name_or_path", None)
    return Path(name) if name and Path(name).is_dir() else None
