"""Whether this Python can capture: versions, or what is missing."""

import importlib
import importlib.metadata
import platform
from typing import Any

# Importable name → version that is needed, as far as this package knows.
NEEDED = {
    "torch": None,
    "transformers": (5, 23),
    "safetensors": None,
    "tokenizers": None,
    "numpy": None,
}


def examine() -> dict[str, Any]:
    """Import every library; `problems` is empty where captures can run."""
    versions: dict[str, str | None] = {}
    problems: list[str] = []
    for name, least in NEEDED.items():
        try:
            importlib.import_module(name)
            versions[name] = importlib.metadata.version(name)
        except Exception as error:
            versions[name] = None
            problems.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if least and _release(versions[name] or "") < least:
            wanted = ".".join(map(str, least))
            problems.append(f"{name}: {versions[name]} is older than {wanted}")
    return {
        "ok": not problems,
        "python": platform.python_version(),
        "layerdiff_hooks": importlib.import_module("layerdiff_hooks").__version__,
        "libraries": versions,
        "problems": problems,
    }


def _release(version: str) -> tuple[int, ...]:
    numbers = version.split("+")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal())
