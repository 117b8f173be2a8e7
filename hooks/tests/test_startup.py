"""What the command loads before it runs, and that the rest is there when it is asked for."""

import json
import subprocess
import sys
from pathlib import Path

import torch
from support import tiny_model

LOAD = """
import json, sys
from layerdiff_hooks.startup import without_compiler
import torch, transformers.utils
before = (torch.compiler.disable, transformers.utils.is_scipy_available)
with without_compiler():
    import layerdiff_hooks.command
loaded = [name for name in ("torch._dynamo", "scipy", "peft") if name in sys.modules]
restored = (torch.compiler.disable, transformers.utils.is_scipy_available) == before
print(json.dumps([loaded, restored]))
"""


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_the_command_loads_no_compiler_no_scipy_and_no_peft_until_they_are_asked_for() -> None:
    code = LOAD + "print(torch._dynamo.__file__); print(torch.compile(lambda x: x).__name__)"
    loaded, dynamo, _ = run(code).splitlines()
    assert json.loads(loaded) == [[], True]
    assert dynamo.endswith("_dynamo/__init__.py")


def test_a_program_that_has_the_compiler_already_keeps_it() -> None:
    code = "import torch._dynamo; real = torch._dynamo\n" + LOAD + "print(torch._dynamo is real)"
    assert run(code).splitlines()[1] == "True"


def test_the_command_gives_the_bytes_that_a_program_gives(tmp_path: Path) -> None:
    """The decorators that are left out change nothing that runs."""
    model = tiny_model()
    torch.manual_seed(1)
    model.save_pretrained(tmp_path / "model")
    code = f"""
import torch
{{}}
from layerdiff_hooks.capture import trace
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "model")!r}).eval()
model.set_attn_implementation("eager")
with torch.no_grad(), trace(model, {{}}):
    model(torch.arange(1, 20)[None])
"""
    lean = "from layerdiff_hooks.startup import without_compiler\nwith without_compiler():\n"
    lean += "    import layerdiff_hooks.command"
    for name, how in (("plain", ""), ("lean", lean)):
        run(code.format(how, repr(str(tmp_path / name))))
    for file in (tmp_path / "plain").iterdir():
        assert file.read_bytes() == (tmp_path / "lean" / file.name).read_bytes()
