"""A PEFT adapter on a model: loaded, described, and refused where a trace cannot show it.

An adapted linear X computes ``base_layer(x) + scale * lora_B(lora_A(x))``; those are its points.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from layerdiff_hooks.architecture import Architecture, LowRank
from layerdiff_hooks.errors import LayerdiffError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SHOWN_NAMES = 5
# An adapter of the model with its vision tower names the text decoder by the first of these.
WRAPPED, PLAIN = "model.language_model.", "model."
# Settings that put something else than two factors and a scale on a linear.
UNSUPPORTED = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save"),
    *("trainable_token_indices", "target_parameters", "layer_replication"),
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config"),
)


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to a model: its linears by point, and the hash of its files."""

    modules: dict[str, LowRank]
    digest: str | None = None

    def manifest(self) -> dict[str, Any]:
        """The manifest's `adapter`."""
        updates = sorted(self.modules.items())
        return {"modules": {point: {"rank": u.rank, "scale": u.scale} for point, u in updates}}


def require_adapter(folder: Path) -> None:
    """Refuse an adapter whose files are missing or that does more than LoRA on linears.

    Raises:
        LayerdiffError: naming the file or the setting.
    """
    if not folder.is_dir():
        raise LayerdiffError(
            f"no adapter directory {folder}",
            f"--lora takes a directory with {CONFIG} and {WEIGHTS}",
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise LayerdiffError(
                f"adapter {folder} has no {name}", "save it with PEFT's save_pretrained"
            )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise LayerdiffError(f"{folder / CONFIG}: not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type", "LORA") != "LORA":
        raise LayerdiffError(f"{folder / CONFIG}: expected an adapter of type LORA")
    found = [key for key in UNSUPPORTED if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append("bias")
    if found:
        raise LayerdiffError(
            f"{folder / CONFIG}: {found[0]} is set, and is not plain LoRA on linears",
            "a trace shows base_layer, lora_A and lora_B of each linear, and nothing else",
        )


def put_on(model: PreTrainedModel, folder: Path) -> None:
    """Inject an adapter into `model`, in the precision that the model has.

    Raises:
        LayerdiffError: peft is missing, or the adapter is not one for this model.
    """
    require_adapter(folder)
    try:
        import peft
    except ImportError as error:
        raise LayerdiffError(f"--lora needs peft: {error}", "pip install peft") from error
    try:
        # Otherwise PEFT keeps the factors of a 16-bit model in 32 bits.
        adapted = peft.PeftModel.from_pretrained(
            model,
            str(folder),
            autocast_adapter_dtype=False,
            key_mapping={rf"^{re.escape(WRAPPED)}": PLAIN},
        )
        expected = set(peft.get_peft_model_state_dict(adapted))
    except (ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        first = str(error).strip().splitlines()[:2]
        raise LayerdiffError(
            f"adapter {folder} does not fit this model: {' '.join(line.strip() for line in first)}",
            "is it an adapter for another model?",
        ) from error
    _require_names(folder, expected)
    adapted.eval()


def _require_names(folder: Path, expected: set[str]) -> None:
    """PEFT only warns of a tensor that is missing or has no place; here both are errors."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        wrapped, plain = f"base_model.model.{WRAPPED}", f"base_model.model.{PLAIN}"
        names = sorted(file.keys())
        stored = {name.replace(wrapped, plain, 1) for name in names}
        bad = [name for name in names if not bool(file.get_tensor(name).isfinite().all())]
    if bad:
        raise LayerdiffError(f"{folder / WEIGHTS}: {bad[0]} is not finite")
    for what, names in (("missing", expected - stored), ("unexpected", stored - expected)):
        if names:
            shown = ", ".join(sorted(names)[:SHOWN_NAMES])
            raise LayerdiffError(
                f"{folder / WEIGHTS}: {len(names)} {what} tensors: {shown}",
                "is it an adapter for another model?",
            )


def adapter_of(
    model: nn.Module, architecture: Architecture, folder: Path | None = None
) -> Adapter | None:
    """The adapter that is on the linears of `model`; `folder` gives it its hash.

    Raises:
        LayerdiffError: there are several, or one that cannot be shown as two factors and a scale.
    """
    modules = {architecture.canonical(path): update for path, update in _updates(model)}
    if not modules:
        return None
    return Adapter(modules, _hash(folder) if folder else None)


def _updates(model: nn.Module) -> Iterator[tuple[str, LowRank]]:
    for path, module in model.named_modules():
        factors = getattr(module, "lora_A", None)
        if not isinstance(factors, nn.ModuleDict) or len(factors) == 0:
            continue
        active = list(module.active_adapters)
        if len(active) != 1 or module.merged or module.disable_adapters:
            raise LayerdiffError(
                f"{path} has the adapters {active}, some of them merged or switched off",
                "a trace shows exactly one active adapter; load the model with that one",
            )
        name = active[0]
        if name not in factors:
            continue
        plain = isinstance(module.get_base_layer(), nn.Linear) and name not in module.lora_variant
        if not plain or module.lora_B[name].bias is not None:
            raise LayerdiffError(f"{path} has an adapter that is not plain LoRA on a linear")
        yield path, LowRank(int(module.r[name]), float(module.scaling[name]), name)


def _hash(folder: Path) -> str:
    """One hash over the names and hashes of both files."""
    lines = ""
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as file:
            lines += f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n"
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
