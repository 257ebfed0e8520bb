"""Stage ``shards``: documents -> token shards, with a held-out split for bits per byte.

Reads a corpus (``documents/*.parquet``), encodes with a tokenizer folder, writes ``train/*.arrow`` and
``held_out/*.arrow`` (`fledge.corpus.shards`). Documents that encode to nothing are counted, not written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field

from fledge.core import config as core_config
from fledge.core.artefact import Work, is_finished, produce, read_manifest
from fledge.core.bench import Bench
from fledge.core.errors import ArtefactError, DataError
from fledge.core.progress import progress
from fledge.core.readers import read_records
from fledge.core.records import Document

_BATCH = 1024  # documents encoded together
_BYTES_PER_TOKEN = 3.9  # a guess for the forecast before anything was encoded
_TOKENS_PER_SECOND = 500_000  # likewise


class Repeat(core_config.Config):
    """Documents that match are written ``times`` times (up to 4 epochs are nearly as good as new data, SPEC E.4)."""

    source: str = Field("*", description="shell pattern on the document's source, such as notes/*")
    language: str = Field("*", description="shell pattern on the language")
    times: int = Field(ge=0, le=100, description="0 leaves the documents out")

    def matches(self, source: str, language: str) -> bool:
        return fnmatchcase(source, self.source) and fnmatchcase(language, self.language)


class Config(core_config.Config):
    """Configuration of the stage."""

    documents: Path = Field(description="a corpus: folder with documents/*.parquet, or a file of Document records")
    tokenizer: Path = Field(description="a tokenizer folder")
    held_out: float = Field(0.02, ge=0, lt=1, description="share of documents kept for measuring, by hash of the id")
    repeat: tuple[Repeat, ...] = Field((), description="the first entry that matches a document decides")
    seed: int = 0


def run(config: Config, out: Path, redo: bool = False) -> None:
    """Write the shards at ``out``; a finished folder that matches is left as it is."""
    inputs: dict[str, Any] = {"documents": config.documents, "tokenizer": config.tokenizer}
    with produce(out, kind="shards", stage="shards", config=config, inputs=inputs, seed=config.seed, redo=redo) as work:
        if not work.done:
            _make(config, work)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Documents, tokens and seconds, from the corpus if it is there, else from what its estimate said."""
    documents, size = 0, 0
    if is_finished(config.documents):
        metrics = read_manifest(config.documents)["metrics"]
        documents, size = sum(metrics["documents"].values()), sum(metrics["bytes"].values())
    else:
        documents = int(bench.fact(config.documents, "documents", 0))
        size = int(bench.fact(config.documents, "bytes", 0))
    rows = int(bench.fact(config.documents, f"{config.documents.stem}_rows", 0))
    if rows and config.documents.suffix == ".jsonl":
        mean = float(bench.fact(config.documents, f"{config.documents.stem}_mean_tokens", 80))
        return {"documents": rows, "tokens": int(rows * mean), "mean_tokens": mean, "seconds": 1.0 + rows * 1e-4}
    if not documents:
        return {}
    tokens = int(size / _BYTES_PER_TOKEN * (1 - config.held_out)) + documents
    return {
        "documents": documents, "tokens": tokens, "mean_tokens": tokens / documents,
        "seconds": 0.5 + tokens / _TOKENS_PER_SECOND + documents * 5e-5,
    }  # fmt: skip


def _make(config: Config, work: Work) -> None:
    from fledge.corpus import tables
    from fledge.corpus.shards import SPLITS, TokenShards, write_shard
    from fledge.tokenizer.tokenizer import Tokenizer

    files = [config.documents] if config.documents.is_file() else tables.parts(config.documents / "documents")
    if not files:
        raise DataError(f"{config.documents}: holds no documents/*.parquet. Give the folder that stage corpus wrote.")
    tokenizer = Tokenizer.load(config.tokenizer)
    counts = [_count(path) for path in files]
    total = sum(counts)
    with progress("shards", total, unit="docs") as bar:
        for number, (path, rows) in enumerate(zip(files, counts, strict=True)):
            name = f"part-{number:05d}.arrow"
            places = [work.folder / split / name for split in SPLITS]
            if not all(place.exists() for place in places):  # else an earlier, interrupted run wrote them
                encoded = list(_encoded(path, tokenizer, config))
                for place, held_out in zip(places, (False, True), strict=True):
                    write_shard(place, (row for row, out in encoded if out == held_out))
            bar.advance(rows)
    written = {split: TokenShards(work.folder, split) for split in SPLITS}
    unique = 0
    for split, shards in written.items():
        languages: Counter[str] = Counter()
        for index in range(len(shards)):
            info = shards.info(index)
            languages[info["language"]] += int(shards.lengths[index])
            unique += info["copy"] == 0
        work.metrics[split] = {
            "documents": len(shards), "tokens": int(shards.lengths.sum()), "bytes": int(shards.byte_lengths.sum()),
            "tokens_by_language": dict(sorted(languages.items())),
        }  # fmt: skip
    if not len(written["train"]):
        raise DataError(f"{config.documents}: no document is left to train on (repeat={config.repeat})")
    train = work.metrics["train"]  # not_written: repeat with times=0, or empty texts
    work.metrics |= {
        "documents": train["documents"], "tokens": train["tokens"], "not_written": total - unique,
        "mean_tokens": round(train["tokens"] / train["documents"], 1),
        "bytes_per_token": round(train["bytes"] / train["tokens"], 3), "vocab_size": tokenizer.vocab_size,
        "tokenizer_ids": ids_hash(config.tokenizer),
    }  # fmt: skip


def ids_hash(folder: Path) -> str:
    """Hash of what decides a tokenizer's ids. Not of the file, which others write anew with the same meaning."""
    path = folder / "tokenizer.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        parts = {key: values.get(key) for key in ("normalizer", "pre_tokenizer", "model", "added_tokens")}
    except (OSError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{path}: cannot be read as a tokenizer: {error}") from None
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def require_ids(shards: Path, tokenizer: Path) -> None:
    """Raises `ArtefactError` where the shards hold ids of another tokenizer. Foreign shards say nothing of theirs."""
    recorded = read_manifest(shards)["metrics"].get("tokenizer_ids") if is_finished(shards) else None
    if recorded is not None and recorded != ids_hash(tokenizer):
        raise ArtefactError(
            f"{shards}: was encoded with another tokenizer than {tokenizer}: the same ids mean other text. "
            f"Encode the documents again with tokenizer={tokenizer}."
        )


def _encoded(path: Path, tokenizer: Any, config: Config) -> Iterator[tuple[dict[str, Any], bool]]:
    """Rows of a shard and whether they are held out."""
    import numpy as np

    from fledge.corpus.shards import is_held_out

    for rows in _batches(path):
        for row, ids in zip(rows, tokenizer.encode_batch([row["text"] for row in rows]), strict=True):
            if not ids:
                continue
            values = np.array([*ids, tokenizer.endoftext], dtype=np.int32)
            held_out = is_held_out(row["id"], config.held_out, config.seed)
            times = next((r.times for r in config.repeat if r.matches(row["source"], row["language"])), 1)
            for copy in range(min(times, 1) if held_out else times):
                info = {key: row[key] for key in ("id", "source", "offset", "url", "language")}
                yield {**info, "tokens": values, "bytes": len(row["text"].encode()), "copy": copy}, held_out


def _count(path: Path) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(path).num_rows if path.suffix == ".parquet" else sum(len(rows) for rows in _batches(path))


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows of a corpus's file, or of a file of `Document` records, whose offset is their number in it."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH):
            yield batch.to_pylist()
        return
    numbered = enumerate(read_records(path, Document))
    while part := list(itertools.islice(numbered, _BATCH)):
        yield [
            {
                "id": d.id, "text": d.text, "source": d.source, "offset": number, "url": "",
                "language": d.language or "",
            }
            for number, d in part
        ]  # fmt: skip
