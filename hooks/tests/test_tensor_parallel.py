"""One model split over two processes by torchrun leaves the trace that one process leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import Read, tiny_model

from layerdiff_hooks import LayerdiffError
from layerdiff_hooks.architecture import load_architecture
from layerdiff_hooks.cli import _parser, main
from layerdiff_hooks.processes import require_supported
from layerdiff_hooks.shares import require_divisible

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "src" / "bundle" / "model"
# Aborts each process whose interpreter is taken down.
EXITS = str(Path(__file__).parent / "exits")
LINE = {"id": "a", "token_ids": [5, 17, 200, 3, 45, 99]}
STEPS = 1
# Nothing before the first sum over processes, with one exception: a linear of few rows, such as
# in_proj_a, is computed by other code when there are half as many, and sums in another order.
SAME_BITS = {
    "hybrid": "input_layernorm linear_attn.in_proj_qkv linear_attn.in_proj_z linear_attn.conv1d "
    "linear_attn.conv_state linear_attn.q_l2norm linear_attn.k_l2norm",
    "dense": "input_layernorm self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.q_rope "
    "self_attn.k_rope self_attn.k_cache self_attn.v_cache self_attn.scores self_attn.probs "
    "self_attn.context",
}
EVERYWHERE = ("model.embed_tokens", "model.rotary_emb.cos", "model.rotary_emb.sin")


def command(model: Path, folder: Path, out: Path, *more: str) -> list[str]:
    prompts = folder / "prompts.jsonl"
    prompts.write_text(json.dumps(LINE) + "\n", encoding="utf-8")
    named = ["--model", str(model), "--prompts", str(prompts), "--out", str(out)]
    return ["capture", *named, "--threads", "1", *(more or ("--steps", str(STEPS)))]


def torchrun(arguments: list[str]) -> subprocess.Popen[str]:
    return two_processes("-m", "layerdiff_hooks", *arguments)


def two_processes(*program: str) -> subprocess.Popen[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", *program]
    places = [EXITS, *filter(None, [os.environ.get("PYTHONPATH")])]
    path = os.pathsep.join(places)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    pipe = subprocess.PIPE
    return subprocess.Popen(launch, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dense") / "model"
    script = ROOT / "hooks" / "scripts" / "dense.py"
    made = [sys.executable, str(script), "--family", "llama", str(out)]
    subprocess.run(made, check=True, capture_output=True)
    return out


@pytest.mark.parametrize("kind", ["hybrid", "dense"])
def test_two_processes_leave_the_trace_of_one(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    model = BUNDLED if kind == "hybrid" else request.getfixturevalue("dense")
    running = torchrun(command(model, tmp_path, tmp_path / "two"))
    assert main(command(model, tmp_path, tmp_path / "one")) == 0
    said, talk = running.communicate(timeout=300)
    assert running.returncode == 0, talk
    assert said.count("bit for bit those without") == 1
    one, two = Read(tmp_path / "one"), Read(tmp_path / "two")
    assert two.order == one.order
    assert two.manifest["prompts"] == one.manifest["prompts"]
    assert two.manifest["self_check"] == one.manifest["self_check"]

    first = {f"model.layers.0.{name}" for name in SAME_BITS[kind].split()}
    largest = (0.0, "")
    for (step, point), here in one.tensors.items():
        there = two(point, step)
        assert there.dtype == here.dtype and there.shape == here.shape
        if point in EVERYWHERE or here.dtype == torch.uint8 or point in first:
            assert torch.equal(here, there), f"{point}, step {step}"
            continue
        assert torch.equal(here.isfinite(), there.isfinite()), point
        a, b = (tensor[here.isfinite()].double() for tensor in (here, there))
        error = float((a - b).norm() / a.norm())
        assert error < 1e-5, f"{point}, step {step}: {error}"
        largest = max(largest, (error, f"{point}, step {step}"))
    print(f"largest relative L2 error of {kind}: {largest[0]:.2e} at {largest[1]}")

    parallel = two.manifest["provenance"]["parallel"]
    assert (parallel["processes"], parallel["backend"]) == (2, "gloo")
    assert "parallel" not in one.manifest["provenance"]
    layer = "model.layers.3" if kind == "hybrid" else "model.layers.0"
    heads = 4 if kind == "hybrid" else 6
    assert parallel["split"][f"{layer}.self_attn.scores"] == {"axis": 0, "shares": [heads // 2] * 2}
    assert parallel["split"][f"{layer}.self_attn.k_cache"] == {"axis": 1, "shares": [1, 1]}
    assert not any("linear_attn" in point or "o_proj" in point for point in parallel["split"])
    for point, split in parallel["split"].items():
        assert sum(split["shares"]) == two(point).shape[split["axis"]], point


def test_when_one_process_fails_all_end_with_one_error_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    # Only the first writes, and so only the first finds that it cannot.
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "trace"
    running = torchrun(command(BUNDLED, tmp_path, out))
    said, talk = running.communicate(timeout=120)
    assert running.returncode != 0
    errors = [line for line in talk.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: process 0 of 2: cannot write {out}: Not a directory"], talk
    assert "exitcode  : 2" in talk
    # torchrun shows a traceback of its own.
    assert "layerdiff_hooks/" not in talk
    assert said == ""


def test_a_killed_process_ends_the_other_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "out" / "trace"
    running = torchrun(command(BUNDLED, tmp_path, out, "--steps", "2000"))
    _wait_for(lambda: list(tmp_path.glob("out/.trace.*.partial/shard-*")))
    os.kill(_child(running.pid), signal.SIGKILL)
    _, talk = running.communicate(timeout=60)
    assert running.returncode != 0
    assert list(out.parent.iterdir()) == []
    assert sum(line.startswith(("error: ", "interrupted")) for line in talk.splitlines()) == 1, talk


def _wait_for(there: Callable[[], object]) -> None:
    end = time.monotonic() + 100
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def _child(parent: int) -> int:
    """The process with rank 1."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ranked = [pid for pid in children if "RANK=1" in _environment(pid)]
    return int(ranked[0])


def _environment(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")


# What each of two processes does; the model is in the first argument.
GATHERS = """
import json, sys
import torch, torch.distributed as dist
from pathlib import Path
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from layerdiff_hooks import LayerdiffError
from layerdiff_hooks.architecture import load_architecture
from layerdiff_hooks.leave import leave
from layerdiff_hooks.shares import Shares, gathered

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
config = json.loads((Path(sys.argv[1]) / "config.json").read_text())
architecture = load_architecture("qwen3_5")
plan = {"layers.*.self_attn.q_proj": "colwise"}
shares = Shares(plan, architecture, architecture.sizes(config))
points = {point.name: point for point in architecture.points(config)}
scores, norm = points["model.layers.3.self_attn.scores"], points["model.norm"]

whole = torch.arange(4.0 * 6 * 6).reshape(1, 4, 6, 6)
for own in (shares, None):
    split = distribute_tensor(whole, mesh, [Shard(1)])
    assert split.to_local().shape == (1, 2, 6, 6)
    assert torch.equal(gathered(split, scores, own), whole)
    same = distribute_tensor(whole, mesh, [Replicate()])
    assert torch.equal(gathered(same, norm, own), whole)
    summed = DTensor.from_local(whole, mesh, [Partial()])
    assert torch.equal(gathered(summed, norm, own), 2 * whole)
assert shares.provenance()["split"] == {scores.name: {"axis": 0, "shares": [2, 2]}}
try:
    gathered(distribute_tensor(torch.ones(1, 6, 8), mesh, [Shard(2)]), norm, shares)
except LayerdiffError as error:
    print(f"refused: {error.message}", flush=True)
dist.destroy_process_group()
leave(0)
"""


def test_a_value_that_pytorch_has_split_is_put_together_and_its_shares_are_noted(
    tmp_path: Path,
) -> None:
    script = tmp_path / "gathers.py"
    script.write_text(GATHERS, encoding="utf-8")
    running = two_processes(str(script), str(BUNDLED))
    said, talk = running.communicate(timeout=120)
    assert running.returncode == 0, talk
    assert said.count("refused: model.norm is split as") == 2


def test_who_cannot_write_what_it_says_leaves_with_an_error() -> None:
    said = "from layerdiff_hooks.leave import leave; print('done'); leave(0)"
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with full.open("w") as nowhere:
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        ended = subprocess.run(
            [sys.executable, "-c", said], stdout=nowhere, env=buffered, check=False
        )
    assert ended.returncode == 120


def test_a_number_of_processes_that_does_not_divide_the_heads_is_refused() -> None:
    architecture = load_architecture("qwen3_5")
    sizes = architecture.sizes(tiny_model().config.to_dict())
    require_divisible(architecture, sizes, 2)
    with pytest.raises(LayerdiffError, match="2 kv_heads cannot be split over 4 processes"):
        require_divisible(architecture, sizes, 4)


def test_what_needs_the_whole_model_is_refused_under_torchrun(tmp_path: Path) -> None:
    given = command(BUNDLED, tmp_path, tmp_path / "t", "--plant", "rope-interleaved@3")
    with pytest.raises(LayerdiffError, match="--plant needs the whole model in one process"):
        require_supported(_parser().parse_args(given))
