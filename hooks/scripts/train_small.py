r"""Train the small Qwen3.5 text model that layerdiff bundles, and export it.

The text is the Python standard library of the running interpreter (code, docstrings and the
language reference in ``pydoc_data``; PSF licence). Everything is seeded: the same Python,
torch and transformers, the same thread count and ``--steps`` give the same weights.

The learning rate warms up, stays constant, and falls along a cosine over the last
``--decay-steps``. Nothing before the fall depends on the length of the run, so a run that is
ended by ``--minutes`` equals the run with the ``--steps`` that it prints.

    python hooks/scripts/train_small.py --out src/bundle/model

trains a model like the bundled one. The bundled one was made in two parts, on Python 3.11.7:

    python hooks/scripts/train_small.py --out PART --steps 2250 --decay-steps 0
    python hooks/scripts/train_small.py --out src/bundle/model --resume PART --first-step 2250 \
        --steps 2850 --decay-steps 600 --warmup 20 --threads 1
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import math
import random
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from layout import checkpoint_config, checkpoint_name, text_config, write_json, write_tensors
from safetensors.torch import load_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

VOCAB_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
# Qwen3.5's own pattern, so that both engines split text the way they do for the real model.
PRETOKENIZE_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SKIPPED_DIRECTORIES = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib-dynload",
        "lib2to3",
        "msilib",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    }
)
ANSWER_LIMIT = 700
QUESTIONS: dict[str, tuple[str, ...]] = {
    "module": ("What is the module {0} for?", "Explain the module {0}.", "What does {0} do?"),
    "class": ("What is {0}?", "Explain the class {0}.", "What is {0} used for?"),
    "function": ("What does {0} do?", "Explain {0}.", "How do I use {0}?"),
}


@dataclass(frozen=True)
class Docstring:
    """One documented object of the standard library."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """The documents to learn from and those held out."""

    train: list[str]
    validation: list[str]


def source_files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield (dotted module name, source) of the library below ``root``, in path order."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_DIRECTORIES.intersection(relative.parts[:-1]) or "-" in relative.parts[0]:
            continue
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        parts = relative.with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), source


def docstrings(module: str, source: str) -> Iterator[Docstring]:
    """Yield the docstrings of a module, its classes and its functions, outermost first."""

    def walk(node: ast.AST, name: str) -> Iterator[Docstring]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
            text = inspect.cleandoc(ast.get_docstring(node) or "")
            if len(text) >= 20:
                yield Docstring(name, kind, text)
            for child in node.body:
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from walk(child, f"{name}.{child.name}")

    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    yield from walk(tree, module)


def language_reference(root: Path) -> list[tuple[str, str]]:
    """The (topic, text) pairs that ``help("topic")`` shows."""
    path = root / "pydoc_data" / "topics.py"
    if not path.is_file():
        return []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node.value)
            return sorted(topics.items())
    return []


def chat(question: str, answer: str) -> str:
    """One exchange in Qwen's chat format."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def shorten(text: str, limit: int = ANSWER_LIMIT) -> str:
    """The paragraphs of ``text`` that fit into ``limit`` characters; at least one, cut."""
    kept: list[str] = []
    for paragraph in text.split("\n\n"):
        if kept and sum(map(len, kept)) + len(paragraph) > limit:
            break
        kept.append(paragraph[:limit])
    return "\n\n".join(kept).strip()


def build_corpus(root: Path, seed: int) -> Corpus:
    """Code once, prose more often; every 40th document is held out in all its forms."""
    rng = random.Random(seed)
    train: list[str] = []
    validation: list[str] = []
    seen: set[str] = set()
    count = 0

    def add(forms: list[str]) -> None:
        nonlocal count
        count += 1
        if count % 40 == 0:
            validation.append(forms[0])
        else:
            train.extend(forms)

    for module, source in source_files(root):
        add([source])
        for doc in docstrings(module, source):
            # The same inherited sentence a hundred times teaches nothing.
            if doc.text in seen:
                continue
            seen.add(doc.text)
            answer = shorten(doc.text)
            questions = [q.format(doc.name) for q in QUESTIONS[doc.kind]]
            rng.shuffle(questions)
            add([chat(question, answer) for question in questions])
    for topic, text in language_reference(root):
        add([text, text, chat(f"Explain {topic}.", shorten(text))])
    rng.shuffle(train)
    return Corpus(train, validation)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE with Qwen's pre-tokenizer; the special tokens get the first ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """All texts as one stream of ids, each ended by the end-of-text token."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(texts):
        ids.extend(encoding.ids)
        ids.append(end)
    return np.asarray(ids, dtype=np.int64)


def small_config(eos_token_id: int) -> Qwen3_5TextConfig:
    """The shape of the small model: every kind of layer and head ratio of the real ones."""
    return text_config(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
        mrope_section=[3, 3, 2],
        max_position_embeddings=8192,
        initializer_range=0.05,
        eos_token_id=eos_token_id,
    )


def export(model: Qwen3_5ForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write config.json, tokenizer.json and a bf16 model.safetensors of the real layout."""
    out.mkdir(parents=True, exist_ok=True)
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        del weights["lm_head.weight"]
    tensors = {
        checkpoint_name(name): tensor.to(torch.bfloat16).contiguous()
        for name, tensor in weights.items()
    }
    write_json(out / "config.json", checkpoint_config(model.config))
    tokenizer.save(str(out / "tokenizer.json"))
    write_tensors(out / "model.safetensors", tensors)


def restore(model: Qwen3_5ForCausalLM, snapshot: Path) -> None:
    """Put the weights of an exported snapshot into ``model``."""
    saved = load_file(snapshot / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(saved[checkpoint_name(name)])


def optimizer_for(model: Qwen3_5ForCausalLM, rate: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only: norms, A_log, dt_bias and the convolution stay free."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), eps=1e-8)


def rate_factor(
    step: int, first_step: int, warmup: int, decay_start: int | None, decay_steps: int
) -> float:
    """Factor on the peak learning rate at ``step``; ``decay_start`` None is still unknown."""
    rise = min(1.0, (step - first_step + 1) / warmup)
    if decay_start is None or step < decay_start:
        return rise
    done = min(1.0, (step - decay_start) / decay_steps)
    return rise * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))


def batches(ids: np.ndarray, length: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless [batch, length + 1] windows: each epoch a new order and a new offset."""
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        offset = int(rng.integers(length))
        windows = (len(ids) - 1 - offset) // length
        starts = rng.permutation(windows) * length + offset
        for first in range(0, windows - batch + 1, batch):
            rows = [ids[start : start + length + 1] for start in starts[first : first + batch]]
            yield torch.from_numpy(np.stack(rows))
        epoch += 1


def loss_of(model: Qwen3_5ForCausalLM, window: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy in nats."""
    logits = model(input_ids=window[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: Qwen3_5ForCausalLM, ids: np.ndarray, length: int, limit: int) -> float:
    """Mean loss over the first ``limit`` held-out windows."""
    model.eval()
    starts = range(0, len(ids) - length, length)[:limit]
    losses = []
    for first in range(0, len(starts), 16):
        rows = [ids[start : start + length + 1] for start in starts[first : first + 16]]
        losses.append((len(rows), loss_of(model, torch.from_numpy(np.stack(rows))).item()))
    model.train()
    return sum(n * loss for n, loss in losses) / sum(n for n, _ in losses)


@torch.no_grad()
def sample(model: Qwen3_5ForCausalLM, tokenizer: Tokenizer, prompt: str, tokens: int = 60) -> str:
    """The greedy continuation of ``prompt``."""
    model.eval()
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=model.config.eos_token_id,
    )
    model.train()
    return tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=False)


def train(args: argparse.Namespace) -> None:
    """The whole job: corpus, tokenizer, training, export."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    root = Path(sysconfig.get_paths()["stdlib"])
    corpus = build_corpus(root, args.seed)
    tokenizer = train_tokenizer(corpus.train)
    ids, held_out = encode(tokenizer, corpus.train), encode(tokenizer, corpus.validation)
    characters = sum(map(len, corpus.train))
    print(
        f"corpus: {len(corpus.train)} documents, {characters} characters, {len(ids)} tokens "
        f"({characters / len(ids):.2f} characters each); held out: {len(corpus.validation)} "
        f"documents, {len(held_out)} tokens",
        flush=True,
    )
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert end is not None
    model = Qwen3_5ForCausalLM(small_config(end))
    model.train()
    print(f"model: {sum(p.numel() for p in model.parameters())} parameters", flush=True)

    if args.resume is not None:
        restore(model, args.resume)
    optimizer = optimizer_for(model, args.rate)
    stream = itertools.islice(
        batches(ids, args.length, args.batch, args.seed), args.first_step, None
    )
    decay_start = None if args.minutes else max(args.first_step, args.steps - args.decay_steps)
    begin = time.monotonic()
    running, step = 0.0, args.first_step
    while decay_start is None or step < decay_start + args.decay_steps:
        factor = rate_factor(step, args.first_step, args.warmup, decay_start, args.decay_steps)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * factor
        loss = loss_of(model, next(stream))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        done = step - args.first_step
        running = loss.item() if done == 1 else 0.98 * running + 0.02 * loss.item()
        elapsed = time.monotonic() - begin
        if decay_start is None and done >= args.warmup:
            remaining = args.decay_steps * elapsed / done
            if elapsed + remaining >= 60 * args.minutes:
                decay_start = step
                print(f"decay starts; same run: --steps {step + args.decay_steps}", flush=True)
        if step % 50 == 0:
            print(
                f"step {step} loss {running:.4f} rate {args.rate * factor:.2e} "
                f"{elapsed / done:.3f} s/step {elapsed / 60:.1f} min",
                flush=True,
            )
        if step % args.snapshot_every == 0:
            held = validation_loss(model, held_out, args.length, 64)
            print(f"step {step} validation {held:.4f}", flush=True)
            if args.snapshots is not None:
                export(model, tokenizer, args.snapshots)

    held = validation_loss(model, held_out, args.length, 10**9)
    print(f"final: {step} steps, validation loss {held:.4f} nats per token", flush=True)
    export(model, tokenizer, args.out)
    for prompt in (
        chat("What does os.path.join do?", "").removesuffix("<|im_end|>\n"),
        "def read_lines(path):\n    ",
        "The with statement is used to",
    ):
        print(f"--- {prompt!r}\n{sample(model, tokenizer, prompt)}", flush=True)
    print("training done", flush=True)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint is written")
    parser.add_argument("--snapshots", type=Path, help="folder for checkpoints on the way")
    parser.add_argument("--snapshot-every", type=int, default=250, metavar="STEPS")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on from this snapshot")
    parser.add_argument("--first-step", type=int, default=0, help="the step of --resume")
    parser.add_argument("--steps", type=int, default=2850, help="length of the run")
    parser.add_argument("--minutes", type=float, help="choose the length by a time budget instead")
    parser.add_argument("--decay-steps", type=int, default=600)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=20260401)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    train(arguments())
