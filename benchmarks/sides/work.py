"""What both sides of a comparison share: shapes, data from seeds, timing, the one line that a side prints.

Imported by every script of this folder, under the interpreter of whichever peer it measures: nothing but numpy here.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

WORK = Path(os.environ.get("BENCH_WORK") or Path(__file__).parents[1] / ".work")

# Qwen2's shape, tied embeddings, random weights. Without embeddings 4.4M, 4.4M and 24.9M parameters.
_TINY = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 64, "intermediate_size": 688, "max_position_embeddings": 4096}  # fmt: skip
SHAPES: dict[str, dict[str, int]] = {
    "tiny8k": {**_TINY, "vocab_size": 8192},
    "tiny32k": {**_TINY, "vocab_size": 32_768},
    "tiny152k": {**_TINY, "vocab_size": 151_936},
    "small30m": {**_TINY, "hidden_size": 512, "num_hidden_layers": 9, "num_attention_heads": 8,
                 "intermediate_size": 1376, "vocab_size": 8192},
}  # fmt: skip
REWARD = "-reward"  # behind a size: the same shape with a scalar head, which rewards answers and is where values start
# Of the rows of RLOO and PPO, on both sides: TRL's defaults
RLOO_BETA = 0.05
PPO: dict[str, Any] = {"epochs": 4, "beta": 0.05, "clip": 0.2, "value_clip": 0.2, "lam": 0.95}
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
IDS = 8192  # of the tokenizer that all models here have
HEADERS = 19  # tokens of the chat format around a user's message, the assistant's header included


def train_flops(size: str, length: int) -> float:
    """Operations a trained token of segments of ``length``: products forward and backward (2 a multiply-add, backward
    twice the forward), of attention the half that is seen."""
    c = shape(size)
    h, layers = c["hidden_size"], c["num_hidden_layers"]
    keys = c["head_dim"] * c["num_key_value_heads"]
    block = 2 * h * h + 2 * h * keys + 3 * h * c["intermediate_size"]
    return 3 * (2 * (layers * block + h * c["vocab_size"]) + 2 * layers * length * h)


def shape(size: str) -> dict[str, int]:
    if size not in SHAPES:
        sys.exit(f"there is no size {size!r}; known: {', '.join(SHAPES)}")
    return SHAPES[size]


def model_folder(size: str) -> Path:
    """The folder with weights and tokenizer that `make_model.py` wrote: the same for both sides."""
    folder = WORK / "models" / size
    if not (folder / "model.safetensors").exists():
        sys.exit(f"{folder}: is not there; make it with: python benchmarks/sides/make_model.py {size}")
    return folder


# ------------------------------------------------------------------------------------------------ data


def ids(step: int, batch: int, length: int, vocabulary: int) -> np.ndarray:
    """(batch, length) random ids of a step."""
    return np.random.default_rng([7, step]).integers(3, vocabulary, (batch, length))


def words(count: int, rng: np.random.Generator) -> str:
    """Text of exactly ``count`` tokens: every word, with the space before it, is one token of the tokenizer."""
    picked = rng.integers(0, word_count(), count)
    return "".join(" " + word(int(i)) for i in picked)


def word_count() -> int:
    """Words of three letters in the vocabulary: what is left of it by bytes, control strings and parts of words."""
    return IDS - 256 - 3 - 26 - 26 * 26


def word(index: int) -> str:
    return LETTERS[index // 676] + LETTERS[index // 26 % 26] + LETTERS[index % 26]


def lengths(count: int, seed: int = 0, median: int = 150, sigma: float = 0.8, most: int = 1000) -> list[int]:
    """Tokens of conversations, uneven as those of instruction data are: lognormal, cut at 32 and ``most``."""
    drawn = np.random.default_rng([11, seed]).lognormal(np.log(median), sigma, count)
    return [int(x) for x in np.clip(drawn, 32, most)]


def conversations(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(prompt, answer) texts; a third of each conversation's tokens are the prompt's."""
    rng = np.random.default_rng([13, seed])
    result = []
    for total in lengths(count, seed):
        prompt = max(4, total // 3 - HEADERS)
        result.append((words(prompt, rng), words(max(4, total - prompt - HEADERS - 1), rng)))
    return result


def pairs(count: int, prompt: int, answer: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) texts of ``prompt`` tokens with the format's own, and ``answer`` with the end's."""
    rng = np.random.default_rng([17, seed])
    sizes = (prompt - HEADERS, answer - 1, answer - 1)
    return [(words(sizes[0], rng), words(sizes[1], rng), words(sizes[2], rng)) for _ in range(count)]


def prompts(count: int, length: int, seed: int = 0) -> list[str]:
    """Texts of user messages, ``length`` tokens with the format's own."""
    rng = np.random.default_rng([19, seed])
    return [words(length - HEADERS, rng) for _ in range(count)]


def as_text(prompt: str) -> str:
    """A user's message as the chat template writes it, for libraries that are given text."""
    return f"{START}user\n{prompt}{END}\n{START}assistant\n"


# ---------------------------------------------------------------------------------------------- timing


def timed(step: Callable[[int], Any], steps: int, warmup: int) -> tuple[list[float], float]:
    """Seconds of each step after ``warmup`` ones, and seconds from the start of the process to the first one's end."""
    taken = []
    first = 0.0
    for index in range(warmup + steps):
        started = time.perf_counter()
        step(index)
        taken.append(time.perf_counter() - started)
        if index == 0:
            first = since_start()
    return taken[warmup:], first


def since_start() -> float:
    """Seconds since this process began."""
    with open("/proc/self/stat", encoding="ascii") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/uptime", encoding="ascii") as file:
        return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def report(rate: float, first: float, packages: Sequence[str], **facts: Any) -> None:
    """The line that the harness reads. ``first``: seconds to the end of the first step."""
    versions = {"python": sys.version.split()[0]}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "?"
    line = {"rate": rate, "first_step_seconds": round(first, 2), "versions": versions, **facts}
    print(json.dumps(line), flush=True)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quiet() -> None:
    """Libraries of Hugging Face: no network, no progress bars, no advice."""
    import logging
    import warnings

    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
