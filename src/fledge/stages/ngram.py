"""Stage ``train-ngram``: texts -> a modified Kneser-Ney n-gram model, whose perplexity is a value of a page.

Writes ``config.json`` and ``model.safetensors`` (sorted arrays), and with ``units.kind=tokens`` the tokenizer in
``tokenizer/``.
Counting is done in memory: about 100 bytes a unit at order 4, which ``units_limit`` bounds.
"""

from __future__ import annotations

import heapq
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from fledge.core import config as core_config
from fledge.core.artefact import fingerprint, produce
from fledge.core.bench import Bench
from fledge.core.errors import ConfigError, DataError
from fledge.core.progress import progress
from fledge.corpus.reading.read import ReadConfig
from fledge.corpus.reading.texts import content_hash, files_of, read_texts
from fledge.corpus.scoring.ngram import TOKENIZER, NgramModel
from fledge.corpus.scoring.units import Units, UnitsConfig

_SECONDS_PER_BYTE = 1e-6  # of text, read, sorted four times
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class Config(core_config.Config):
    """What is counted, and how far."""

    data: tuple[str, ...] = Field(min_length=1, description="files, folders, globs, or corpora made by fledge")
    order: int = Field(4, ge=2, le=7, description="units that an n-gram has at most")
    units: UnitsConfig = Field(default_factory=UnitsConfig)
    tokenizer: Path | None = Field(None, description="folder of the tokenizer, with units.kind=tokens")
    prune: int = Field(0, ge=0, description="n-grams of order 3 and more that occur so often or less are left out")
    least: int = Field(2, ge=1, description="a unit that occurs less often is counted as unknown")
    units_limit: int = Field(20_000_000, ge=1, description="most units; texts are drawn by content and seed from more")
    held_out: float = Field(0.02, ge=0, lt=0.5, description="share of the texts that the model is measured on")
    read: ReadConfig = Field(default_factory=ReadConfig)
    seed: int = 0

    @model_validator(mode="after")
    def _tokens_have_a_tokenizer(self) -> Config:
        if (self.units.kind == "tokens") != (self.tokenizer is not None):
            raise ValueError("units.kind=tokens goes with a tokenizer=FOLDER, and no other kind does")
        return self


def run(config: Config, out: Path, redo: bool = False) -> Path:
    """Count, measure on held-out texts, write."""
    inputs: dict[str, Any] = {"data": files_of(config.data, config.read)}
    if config.tokenizer is not None:
        inputs["tokenizer"] = config.tokenizer
    with produce(
        out, kind="ngram", stage="train-ngram", config=config, inputs=inputs, seed=config.seed, redo=redo
    ) as work:
        if not work.done:
            if config.tokenizer is not None:
                _copy_tokenizer(config.tokenizer, work.folder / TOKENIZER)
            work.metrics |= _make(config, work.folder)
    return out


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Seconds, where the files are there already."""
    try:
        size = sum(path.stat().st_size for path in files_of(config.data, config.read))
    except ConfigError:
        return {}
    return {"bytes": size, "seconds": 1.0 + size * _SECONDS_PER_BYTE}


def _copy_tokenizer(folder: Path, place: Path) -> None:
    place.mkdir(exist_ok=True)
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, place / name)


def _make(config: Config, folder: Path) -> dict[str, Any]:
    from fledge.corpus.scoring.ngram_count import count_model

    units = Units(
        config.units, config.tokenizer, "" if config.tokenizer is None else fingerprint(config.tokenizer)
    )
    drawn = _Draw(config, units)
    hashes, lengths = drawn.sequence()
    if not len(hashes):
        reasons = ", ".join(f"{count} {rule}" for rule, count in drawn.refused.most_common(3)) or "none refused"
        raise DataError(f"data: no text to count: {drawn.read} read, {reasons}")
    with progress("train-ngram", config.order, unit="orders") as bar:
        found = count_model(
            units, hashes, lengths, config.order, config.prune, config.least, lambda order: bar.advance()
        )  # fmt: skip
    found.model.save(folder)
    return {
        "texts": len(lengths), "units": int(lengths.sum()), "read": drawn.read, "refused": dict(drawn.refused),
        "repeated": drawn.repeated, "left_out_for_units_limit": drawn.over, "vocabulary": len(found.model.vocabulary),
        "ngrams": found.ngrams, "pruned": found.pruned, "discounts": found.discounts,
        "discounts_not_estimated": found.fallback, "held_out": _held_out(found.model, drawn.held_out),
    }  # fmt: skip


def _held_out(model: NgramModel, texts: list[str]) -> dict[str, float]:
    if not texts:
        return {}
    found = {name: float(values.sum()) for name, values in model.bits(texts).items()}
    return {
        "texts": len(texts),
        "bits_per_unit": found["bits"] / found["units"],
        "bits_per_character": found["bits"] / max(1.0, found["characters"]),
        "unknown": found["unknown"] / found["units"],
        "perplexity": 2 ** (found["bits"] / found["units"]),
    }


class _Draw:
    """The different texts with the least hashes, as many as the limit of units allows, without those held out: the
    same whatever the order of files. Kept as hashes of units, in the order of the texts' own hashes."""

    def __init__(self, config: Config, units: Units) -> None:
        self.refused: Counter[str] = Counter()
        self.read = self.repeated = self.over = 0
        self.held_out: list[str] = []
        self.kept: dict[int, np.ndarray] = {}
        self._worst: list[int] = []
        seen: set[int] = set()
        held: list[tuple[int, str]] = []
        size = 0
        below = int(config.held_out * 2**64)
        for text in read_texts(config.data, config.read, self.refused):
            self.read += 1
            key = content_hash(text, config.seed)
            if key in seen:
                self.repeated += 1
                continue
            seen.add(key)
            if content_hash(text, config.seed + 1) < below:  # another draw than that of the limit
                held.append((key, text))
                continue
            (hashes, _, _) = units([text])
            heapq.heappush(self._worst, -key)
            self.kept[key] = hashes
            size += len(hashes)
            while size > config.units_limit and len(self.kept) > 1:
                size -= len(self.kept.pop(-heapq.heappop(self._worst)))
                self.over += 1
        self.held_out = [text for _, text in sorted(held)[:2000]]

    def sequence(self) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all units, and how many each text has."""
        parts = [self.kept[key] for key in sorted(self.kept)]
        lengths = np.array([len(part) for part in parts], np.int64)
        return np.concatenate([np.empty(0, np.uint64), *parts]), lengths
