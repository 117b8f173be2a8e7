"""Who wrote a trace: engine, precision, machine and the files that it ran."""

import hashlib
import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers

from layerdiff_hooks.adapter import Adapter

# Name in a trace → flag in /proc/cpuinfo.
CPU_FEATURES = {
    "avx": "avx",
    "avx2": "avx2",
    "avx512f": "avx512f",
    "f16c": "f16c",
    "fma": "fma",
    "neon": "asimd",
}


def provenance(
    dtype: torch.dtype,
    attention: str,
    model_dir: Path | None,
    activation_bits: int | None = None,
    adapter: Adapter | None = None,
    planted: Sequence[str] = (),
    parallel: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The manifest's `provenance`; a hash is None where the file is not known."""
    rounding = {} if activation_bits is None else {"activation_bits": activation_bits}
    on_top = {"adapter": adapter.digest} if adapter else {}
    notes = {"notes": [f"planted: {fault}" for fault in planted]} if planted else {}
    split = {} if parallel is None else {"parallel": parallel}
    libraries = {"peft": metadata.version("peft")} if adapter else {}
    return {
        "engine": "torch",
        "engine_version": torch.__version__,
        "path": "prefill",
        "dtype": str(dtype).removeprefix("torch."),
        "attention_implementation": attention,
        **rounding,
        **split,
        "cpu_features": cpu_features(),
        "host": f"{platform.system()}-{platform.machine()}".lower(),
        "threads": torch.get_num_threads(),
        "hashes": {
            "weights": _weights_hash(model_dir) if model_dir else None,
            "tokenizer": _file_hash(model_dir / "tokenizer.json") if model_dir else None,
            "config": _file_hash(model_dir / "config.json") if model_dir else None,
            **on_top,
        },
        "libraries": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
            "python": platform.python_version(),
            **libraries,
        },
        "command": None,
        **notes,
    }


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The vector extensions of this processor that change how numbers are summed, sorted."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    flags = set(" ".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)).split())
    return [name for name, flag in CPU_FEATURES.items() if flag in flags]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_hash(path: Path) -> str | None:
    return f"sha256:{_digest(path)}" if path.is_file() else None


def _weights_hash(folder: Path) -> str | None:
    """One hash over the names and hashes of all safetensors files, in byte order of names."""
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.name.encode())
    if not files:
        return None
    lines = "".join(f"{path.name} {_digest(path)}\n" for path in files)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
