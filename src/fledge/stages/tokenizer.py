"""Stage tokenizer: documents -> a byte-level BPE tokenizer as a Hugging Face folder (SPEC B.1, B.2)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from fledge.core import config as core_config
from fledge.core.artefact import is_finished, produce, read_manifest
from fledge.core.bench import Bench
from fledge.core.errors import DataError
from fledge.core.progress import progress
from fledge.tokenizer import bpe
from fledge.tokenizer.inputs import kind_of, texts

PASSAGE = 4096  # characters: the unit of sampling, so that one long book does not decide all or nothing
HELD_OUT = 64  # one passage in so many is kept for measuring compression
_SECONDS_PER_BYTE, _SECONDS_PER_MERGE = 4e-7, 2e-4  # on two x86 cores
MEASURED = 1 << 20  # characters of held-out text per language that are encoded for the measurement


class Config(core_config.Config):
    """Configuration of the stage."""

    documents: Path | None = Field(None, description="a corpus: folder with documents/*.parquet, or a file of rows")
    extra: tuple[Path, ...] = Field((), description="more files: documents, dialogues, preferences, tasks, plain text")
    vocab_size: int = Field(4096, description="embedding rows, control tokens and padding included")
    pad_to: int = Field(64, ge=1, description="the rows are a multiple of this")
    max_characters: int = Field(50_000_000, ge=1, description="cap of the sample, shared evenly between languages")
    default_system: str | None = Field(None, description="system message put before dialogues without one")
    model_max_length: int = Field(32768, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _usable(self) -> Config:
        if self.documents is None and not self.extra:
            raise ValueError("there is nothing to train on: give documents=FOLDER or extra=[FILE, ...]")
        return self


def run(config: Config, out: Path, redo: bool = False) -> None:
    """Write the folder ``out``: the tokenizer, and compression by language in its manifest."""
    bpe.check_size(config.vocab_size, config.pad_to)
    files = _files(config)
    inputs: dict[str, Path | list[Path]] = {"extra": list(config.extra)} if config.extra else {}
    if config.documents is not None:
        inputs["documents"] = config.documents
    with produce(
        out, kind="tokenizer", stage="tokenizer", config=config, inputs=inputs, seed=config.seed, redo=redo
    ) as work:
        if work.done:
            return
        skipped: list[str] = []
        sample = _Sample(files, config.seed, config.max_characters, skipped)
        tokenizer = bpe.train(
            sample, config.vocab_size, config.pad_to, config.default_system, config.model_max_length
        )  # fmt: skip
        tokenizer.save(work.folder)
        measured = {name: bpe.compression(tokenizer, kept) for name, kept in sorted(sample.measured().items())}
        work.metrics.update(
            ids=tokenizer.vocab_size,
            rows=tokenizer.embedding_rows,
            wanted_rows=config.vocab_size,
            available_characters=dict(sorted(sample.available.items())),
            trained_characters=dict(sorted(sample.trained.items())),
            trained_bytes=sum(sample.trained_bytes.values()),
            compression=measured,
            compression_on={name: "held-out" if sample.held_out[name] else "training text" for name in measured},
            skipped=len(skipped),
            skipped_reasons=skipped[:20],
        )


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """``vocab_size``, and seconds from the size of the corpus: two passes read it, one counts, merges are learned."""
    size = 0.0
    for path in [*([config.documents] if config.documents else []), *config.extra]:
        if path.is_file():
            size += path.stat().st_size
        elif is_finished(path):
            size += sum(read_manifest(path)["metrics"].get("bytes", {}).values())
        elif path == config.documents:
            size += float(bench.fact(path, "bytes", 0))
    seconds = 1.0 + size * _SECONDS_PER_BYTE + config.vocab_size * _SECONDS_PER_MERGE
    return {"vocab_size": config.vocab_size, "seconds": seconds}


def sample_quotas(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """How many characters of each language to take: the limit is divided evenly, and what a small language leaves
    over goes to the others (water-filling)."""
    quotas: dict[str, int] = {}
    waiting = sorted(sizes, key=lambda name: (sizes[name], name))
    while waiting:
        share = limit // len(waiting)
        name = waiting.pop(0)
        quotas[name] = min(sizes[name], share)
        limit -= quotas[name]
    return quotas


def _threshold(draws: list[tuple[float, int]], quota: int) -> float:
    """The draw below which passages are taken, so that they fill the quota and never exceed it."""
    taken = 0
    for chance, length in sorted(draws):
        taken += length
        if taken > quota:
            return chance
    return 1.0


def _held_below(places: list[float]) -> float:
    """The draw below which passages are held out: one in `HELD_OUT`, at least one of eight or more."""
    if len(places) < 8:
        return 0.0
    return max(1 / HELD_OUT, sorted(places)[1])


class _Sample:
    """Iterates over the sampled passages; keeps the ones held out, and counts."""

    def __init__(self, files: list[Path], seed: int, limit: int, skipped: list[str]) -> None:
        """First pass: measure what there is, and find below which draw a passage is held out or taken."""
        self._arguments = files, seed, min(PASSAGE, max(256, limit // 100))
        self.available: Counter[str] = Counter()
        draws: dict[str, list[tuple[float, float, int]]] = {}
        for language, chance, place, passage in _passages(*self._arguments, skipped):
            self.available[language] += len(passage)
            draws.setdefault(language, []).append((chance, place, len(passage)))
        quotas = sample_quotas(self.available, limit)
        self._total = sum(quotas.values())
        self._held_below = {name: _held_below([place for _, place, _ in found]) for name, found in draws.items()}
        self._below = {
            name: _threshold(
                [(c, length) for c, place, length in draws[name] if place >= self._held_below[name]], quota
            )
            for name, quota in quotas.items()
        }
        self.trained: Counter[str] = Counter()
        self.trained_bytes: Counter[str] = Counter()
        self.held_out: dict[str, list[str]] = {name: [] for name in quotas}
        self._some_trained: dict[str, list[str]] = {name: [] for name in quotas}

    def __iter__(self) -> Iterator[str]:
        with progress("tokenizer", self._total, unit="characters") as bar:
            for language, chance, place, passage in _passages(*self._arguments, []):
                if place < self._held_below[language]:
                    self._keep(self.held_out[language], passage)
                elif chance < self._below[language]:
                    self._keep(self._some_trained[language], passage)
                    self.trained[language] += len(passage)
                    self.trained_bytes[language] += len(passage.encode())
                    bar.advance(len(passage))
                    yield passage

    def measured(self) -> dict[str, list[str]]:
        """Text by language to measure compression on: held out, or training text where nothing could be."""
        found = {name: self.held_out[name] or self._some_trained[name] for name in self.held_out}
        return {name: kept for name, kept in found.items() if kept}

    @staticmethod
    def _keep(kept: list[str], passage: str) -> None:
        if sum(map(len, kept)) < MEASURED:
            kept.append(passage)


def _passages(files: list[Path], seed: int, size: int, skipped: list[str]) -> Iterator[tuple[str, float, float, str]]:
    """(language, draw for the sample, draw for holding out, passage); the draws, in [0, 1), follow from content and
    seed alone, so the choice is the same whatever the order of files."""
    key = seed.to_bytes(8, "little", signed=True)
    for path in files:
        for text, language in texts(path, skipped):
            for passage in cut(text, size):
                digest = hashlib.blake2b(passage.encode("utf-8", "replace"), digest_size=8, key=key).digest()
                chance, place = (int.from_bytes(half, "little") / 2**32 for half in (digest[:4], digest[4:]))
                yield language or "unknown", chance, place, passage


def cut(text: str, size: int) -> Iterator[str]:
    """Passages of about ``size`` characters, ending at line breaks where there are any."""
    start = 0
    while start < len(text):
        end = start + size
        if end < len(text):
            line = text.rfind("\n", start, end)
            end = line + 1 if line > start else end
        yield text[start:end]
        start = end


def _files(config: Config) -> list[Path]:
    found: list[Path] = []
    if config.documents is not None:
        folder = config.documents
        found = sorted((folder / "documents").glob("*.parquet")) if folder.is_dir() else [folder]
        if not found:
            raise DataError(f"{folder}: has no documents/*.parquet, so it is not a corpus")
    found += config.extra
    for path in found:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        kind_of(path)  # refuses what holds no text, before anything is begun
    return found
