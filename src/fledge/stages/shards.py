"""Stage ``shards``: documents -> token shards, with a held-out split for bits per byte.

Reads a corpus (``documents/*.parquet``), encodes with a tokenizer folder, writes ``train/*.arrow`` and
``held_out/*.arrow`` (`fledge.corpus.writing.shards`). Documents that encode to nothing are counted, not written.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from fledge.core import config as core_config
from fledge.core.artefact import Work, is_finished, produce, read_manifest, write_json
from fledge.core.bench import Bench
from fledge.core.errors import ArtefactError, ConfigError, DataError
from fledge.core.packed import open_packed
from fledge.core.progress import progress
from fledge.core.readers import OnError, read_records, read_rows, write_jsonl
from fledge.core.records import Document

if TYPE_CHECKING:
    from fledge.corpus.writing.shards import ShardWriter
    from fledge.tokenizer.corpus import CorpusEncoder

_WHERE_FROM = ("id", "source", "offset", "url", "language")
# Columns that a corpus may have, and what stands for them where it has not.
_OPTIONAL = {"kind": pa.scalar(""), "repeat": pa.scalar(1, pa.int32()), "licence": pa.scalar("")}
_ROWS = 256  # of a Parquet file, read together
_BYTES_PER_TOKEN = 3.9  # a guess for the forecast before anything was encoded
_TOKENS_PER_SECOND = 2_000_000  # likewise; one thread has encoded 9 MB of text a second


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
    instructions: tuple[Path, ...] = Field(
        (), description="conversations to add as plain documents of the kind `instruction` (SPEC E.7); how many of the "
        "tokens they are is said by pretrain.mixture.kinds"
    )  # fmt: skip
    decontaminate: tuple[Path, ...] = Field(
        (), description="task files: instructions that share a 13-gram with one are left out; a corpus has its own"
    )
    on_error: OnError = Field("fail", description="rows of `instructions` that are no conversations")
    held_out: float = Field(0.02, ge=0, lt=1, description="share of documents kept for measuring, by hash of the id")
    repeat: tuple[Repeat, ...] = Field((), description="the first entry that matches a document decides")
    licences: dict[str, str] = Field(
        default_factory=dict, description="source -> licence of its documents that do not tell their own"
    )
    seed: int = 0
    workers: int | None = Field(None, ge=1, exclude=True, description="threads that encode; by default one a core")


def run(config: Config, out: Path, redo: bool = False) -> None:
    """Write the shards at ``out``; a finished folder that matches is left as it is."""
    inputs: dict[str, Any] = {"documents": config.documents, "tokenizer": config.tokenizer}
    inputs |= {name: list(there) for name in ("instructions", "decontaminate") if (there := getattr(config, name))}
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
    from fledge.corpus.writing.shards import SPLITS
    from fledge.tokenizer.corpus import CorpusEncoder, Disagreement
    from fledge.tokenizer.tokenizer import Tokenizer, ids_hash

    files = [config.documents] if config.documents.is_file() else tables.parts(config.documents / "documents")
    if not files:
        raise DataError(f"{config.documents}: holds no documents/*.parquet. Give the folder that stage corpus wrote.")
    if config.instructions:
        files = [*files, _write_instructions(config, work)]
    tokenizer = Tokenizer.load(config.tokenizer)
    encoder = CorpusEncoder(tokenizer, config.workers)
    try:
        total = _encode_files(files, encoder, config, work.folder)
    except Disagreement as error:
        print(f"shards: {error}; all is encoded again by tokenizers alone", file=sys.stderr, flush=True)
        for split in SPLITS:
            shutil.rmtree(work.folder / split, ignore_errors=True)
        encoder = CorpusEncoder(tokenizer, config.workers, slow=str(error))
        total = _encode_files(files, encoder, config, work.folder)
    _measure(config, work, total)
    work.metrics |= {
        "vocab_size": tokenizer.vocab_size, "tokenizer_ids": ids_hash(config.tokenizer), "encoder": encoder.engine,
    }  # fmt: skip
    if encoder.reason:
        work.metrics["encoder_reason"] = encoder.reason


def _write_instructions(config: Config, work: Work) -> Path:
    """Into the artefact, so that one can look at what is trained on. After a kill it is written again, as it was."""
    from collections import Counter

    from fledge.corpus.writing.instructions import instruction_documents

    counts: Counter[str] = Counter()
    place = work.folder / "instructions.jsonl"
    write_jsonl(
        place,
        instruction_documents(config.instructions, config.decontaminate, config.seed, config.on_error, counts),
    )
    work.metrics["instructions"] = dict(sorted(counts.items()))
    return place


def _encode_files(files: list[Path], encoder: CorpusEncoder, config: Config, folder: Path) -> int:
    """Write what is missing of the shards; returns how many documents the files hold."""
    from fledge.corpus.writing.shards import SPLITS, ShardWriter

    counts = [_count(path) for path in files]
    with progress("shards", sum(counts), unit="docs") as bar:
        for number, (path, rows) in enumerate(zip(files, counts, strict=True)):
            places = [folder / split / f"part-{number:05d}.arrow" for split in SPLITS]
            if all(place.exists() for place in places):  # an earlier, interrupted run wrote them
                bar.advance(rows)
                continue
            with ShardWriter(places[0]) as train, ShardWriter(places[1]) as held_out:
                for (ids, lengths), plain in encoder.encode_all(_batches(path)):
                    info = _with_licences(plain, config.licences)
                    for writer, documents in zip((train, held_out), _choose(info, lengths, config), strict=True):
                        _add(writer, documents, ids, lengths, info)
                    bar.advance(len(lengths))
    return sum(counts)


def _with_licences(info: pa.Table, licences: dict[str, str]) -> pa.Table:
    """The configured licence where a document has none of its own."""
    if not licences:
        return info
    own, sources = info.column("licence").to_pylist(), info.column("source").to_pylist()
    told = [one or licences.get(source.partition("/")[0], "") for one, source in zip(own, sources, strict=True)]
    return info.set_column(info.schema.get_field_index("licence"), "licence", pa.array(told, pa.string()))


def _choose(info: pa.Table, lengths: np.ndarray, config: Config) -> tuple[list[int], list[int]]:
    """Numbers of the documents to train on, one for each copy, and of those held out."""
    from fledge.corpus.writing.shards import is_held_out

    chosen: tuple[list[int], list[int]] = ([], [])
    ids, sources, languages = (info.column(name).to_pylist() for name in ("id", "source", "language"))
    for number in np.flatnonzero(lengths > 1).tolist():  # the others have nothing but the end token
        held_out = is_held_out(ids[number], config.held_out, config.seed)
        times = next((r.times for r in config.repeat if r.matches(sources[number], languages[number])), 1)
        chosen[held_out].extend([number] * (min(times, 1) if held_out else times))
    return chosen


def _add(writer: ShardWriter, documents: list[int], ids: np.ndarray, lengths: np.ndarray, info: pa.Table) -> None:
    if not documents:
        return
    ends = np.cumsum(lengths)
    copies = [sum(1 for _ in same) for _, same in itertools.groupby(documents)]
    copy = pa.array([number for count in copies for number in range(count)], pa.int32())
    tokens = np.concatenate([ids[ends[i] - lengths[i] : ends[i]] for i in documents])
    writer.add(tokens, lengths[documents], info.take(documents).append_column("copy", copy))


def _measure(config: Config, work: Work, total: int) -> None:
    """Sizes of what was written, from the files: an earlier process may have written some of them."""
    from fledge.corpus.writing.groups import registry
    from fledge.corpus.writing.shards import SPLITS, TokenShards

    sources = registry(work.folder)
    if unknown := sorted(set(config.licences) - {row["source"] for row in sources}):
        raise ConfigError(f"licences: no document is from {unknown[0]!r} (known: {[row['source'] for row in sources]})")
    write_json(work.folder / "sources.json", sources)
    work.metrics["sources"] = len(sources)
    unique = 0
    for split in SPLITS:
        shards = TokenShards(work.folder, split)
        unique += int((shards.column("copy").to_numpy() == 0).sum())
        languages = pa.table({"language": shards.column("language"), "tokens": shards.lengths})
        sums = languages.group_by("language").aggregate([("tokens", "sum")]).to_pydict()
        work.metrics[split] = {
            "documents": len(shards), "tokens": int(shards.lengths.sum()), "bytes": int(shards.byte_lengths.sum()),
            "tokens_by_language": dict(sorted(zip(sums["language"], sums["tokens_sum"], strict=True))),
        }  # fmt: skip
    train = work.metrics["train"]
    if not train["documents"]:
        raise DataError(f"{config.documents}: no document is left to train on (repeat={config.repeat})")
    work.metrics |= {  # not_written: repeat with times=0, or empty texts
        "documents": train["documents"], "tokens": train["tokens"], "not_written": total - unique,
        "mean_tokens": round(train["tokens"] / train["documents"], 1),
        "bytes_per_token": round(train["bytes"] / train["tokens"], 3),
    }  # fmt: skip


def require_ids(shards: Path, tokenizer: Path) -> None:
    """Raises `ArtefactError` where the shards hold ids of another tokenizer. Foreign shards say nothing of theirs."""
    from fledge.tokenizer.tokenizer import ids_hash

    recorded = read_manifest(shards)["metrics"].get("tokenizer_ids") if is_finished(shards) else None
    if recorded is not None and recorded != ids_hash(tokenizer):
        raise ArtefactError(
            f"{shards}: was encoded with another tokenizer than {tokenizer}: the same ids mean other text. "
            f"Encode the documents again with tokenizer={tokenizer}."
        )


def _count(path: Path) -> int:
    """Documents in a file. Those of JSON lines are not parsed for it."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".json", ".parquet")):
        return sum(1 for _ in read_rows(path))
    with open_packed(path) as file:
        try:
            return sum(1 for line in file if line.strip())
        except (OSError, EOFError):
            return sum(1 for _ in read_rows(path))  # which says what is wrong


def _batches(path: Path) -> Iterator[tuple[list[str], pa.Table]]:
    """Texts of a file, about `BATCH_CHARACTERS` together, with the columns of the shards that say where from."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from fledge.tokenizer.corpus import BATCH_CHARACTERS

    there = pq.read_schema(path).names if path.suffix == ".parquet" else []
    if not {*_WHERE_FROM, "text"} <= set(there):
        yield from _batches_of_records(path, BATCH_CHARACTERS)
        return
    columns = [*_WHERE_FROM, "text", *(name for name in (*_OPTIONAL, "meta") if name in there)]
    for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS, columns=columns):
        sizes = pc.binary_length(batch.column("text")).cast(pa.int64())
        info = pa.table([*(batch.column(name) for name in _WHERE_FROM), sizes], names=[*_WHERE_FROM, "bytes"])
        for name, default in _OPTIONAL.items():
            column = batch.column(name) if name in there else pa.repeat(default, len(batch))
            if name == "licence" and name not in there and "meta" in there:
                column = _licences(batch.column("meta").to_pylist())
            info = info.append_column(name, column)
        marks = np.cumsum(sizes.to_numpy(zero_copy_only=False)) // BATCH_CHARACTERS
        begins = [0, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(batch)]
        for begin, end in itertools.pairwise(begins):
            if end > begin:
                yield batch.column("text").slice(begin, end - begin).to_pylist(), info.slice(begin, end - begin)


def _licences(metas: list[str | None]) -> pa.Array:
    from fledge.corpus.writing.groups import licence_of

    return pa.array([licence_of(json.loads(meta)) if meta and "licen" in meta else "" for meta in metas], pa.string())


def _batches_of_records(path: Path, size: int) -> Iterator[tuple[list[str], pa.Table]]:
    """The same of a file of `Document` records, whose offset is their number in it."""
    from fledge.corpus.writing.groups import licence_of

    texts: list[str] = []
    rows: list[tuple[Any, ...]] = []
    held = 0

    def batch() -> tuple[list[str], pa.Table]:
        return texts, pa.table([*map(list, zip(*rows, strict=True))], names=[*_WHERE_FROM, "bytes", *_OPTIONAL])

    for number, document in enumerate(read_records(path, Document)):
        text = document.text
        bytes_ = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        texts.append(text)
        meta = document.meta
        rest = (str(meta.get("kind", "")), int(meta.get("repeat", 1)), licence_of(meta))
        rows.append((document.id, document.source, number, "", document.language or "", bytes_, *rest))
        held += len(text)
        if held >= size:
            yield batch()
            texts, rows, held = [], [], 0
    if texts:
        yield batch()
