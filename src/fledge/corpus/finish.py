"""From the shards' candidates to the corpus: duplicates out, documents and ledger written, everything counted."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fledge.core.errors import ArtefactError
from fledge.corpus import duplicates
from fledge.corpus.chain import STAGES, ChainConfig
from fledge.corpus.duplicates import Document, Duplicate, find_duplicates
from fledge.corpus.pages import Drop, excerpt_of
from fledge.corpus.tables import ledger_table, rows, write_table
from fledge.corpus.tokens import han_count

_SAMPLES = 3  # of dropped pages, by rule and language, in the funnel


@dataclass
class Totals:
    """What the corpus came to."""

    documents: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)  # kept, by the name of the input
    read: Counter[str] = field(default_factory=Counter)  # all records, by the name of the input
    dropped: int = 0
    errors: int = 0
    work: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return sum(self.documents.values())


class _Candidates:
    """The shards' candidates by one running index. Texts are read by shard, a few shards at a time."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.documents: list[Document] = []
        self.starts = [0]
        bands = []
        for folder in folders:
            table = pq.read_table(folder / "documents.parquet", columns=["id", "text"])
            lengths = pc.utf8_length(table["text"]).to_pylist()
            keys = np.load(folder / "keys.npy")
            ids = table["id"].to_pylist()
            self.documents += [
                Document(id_, length, key.tobytes()) for id_, length, key in zip(ids, lengths, keys, strict=True)
            ]
            self.starts.append(len(self.documents))
            bands.append(np.load(folder / "bands.npy"))
        self.bands = np.concatenate(bands) if bands else np.empty((0, 0), dtype=np.uint64)
        self._texts: OrderedDict[int, Any] = OrderedDict()

    def text(self, index: int) -> str:
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        if shard not in self._texts:
            if len(self._texts) >= 16:
                self._texts.popitem(last=False)
            self._texts[shard] = pq.read_table(self.folders[shard] / "documents.parquet", columns=["text"])["text"]
        self._texts.move_to_end(shard)
        return str(self._texts[shard][index - self.starts[shard]].as_py())


def finish(folders: Sequence[Path], config: ChainConfig, out: Path) -> Totals:
    """Write ``out/documents`` and ``out/ledger``, a file for each shard that has rows."""
    candidates = _Candidates(folders)
    found, work = find_duplicates(candidates.documents, candidates.bands, candidates.text, config.duplicates)
    leaving = {item.index: item for item in found}
    totals = Totals(work=work)
    for number, folder in enumerate(folders):
        begin = candidates.starts[number]
        table = pq.read_table(folder / "documents.parquet")
        stays = [begin + row not in leaving for row in range(len(table))]
        kept = table.filter(pa.array(stays, pa.bool_()))
        gone = [
            _duplicate_row(table.slice(row, 1).to_pylist()[0], leaving[begin + row], candidates, config)
            for row, stay in enumerate(stays)
            if not stay
        ]
        ledger = pa.concat_tables([pq.read_table(folder / "ledger.parquet"), ledger_table(gone)])
        write_table(out / "documents" / f"part-{number:05d}.parquet", kept)
        write_table(out / "ledger" / f"part-{number:05d}.parquet", ledger)
        _count(totals, kept, ledger)
    return totals


def _duplicate_row(row: dict[str, Any], item: Duplicate, candidates: _Candidates, config: ChainConfig) -> Drop:
    rule = "exact" if item.exact else "near"
    threshold = 1.0 if item.exact else config.duplicates.jaccard
    survivor = candidates.documents[item.survivor].id
    return Drop(
        row["id"], row["source"], row["offset"], row["url"], row["language"], "duplicates", rule, duplicates.VERSION,
        item.similarity, threshold, survivor, excerpt_of(row["text"]),
    )  # fmt: skip


def _count(totals: Totals, kept: pa.Table, ledger: pa.Table) -> None:
    lengths = pc.utf8_length(kept["text"]).to_pylist()
    sizes = pc.binary_length(kept["text"]).to_pylist()
    languages, sources = kept["language"].to_pylist(), kept["source"].to_pylist()
    for language, source, length, size in zip(languages, sources, lengths, sizes, strict=True):
        totals.documents[language] += 1
        totals.characters[language] += length
        totals.bytes[language] += size
        totals.sources[source.partition("/")[0]] += 1
    totals.read.update(source.partition("/")[0] for source in [*sources, *ledger["source"].to_pylist()])
    errors = sum(ledger["error"].to_pylist())
    totals.errors += errors
    totals.dropped += len(ledger) - errors


def check(totals: Totals, read: int) -> None:
    """kept + dropped + errors == read, or the corpus is not to be trusted."""
    if totals.kept + totals.dropped + totals.errors != read:
        raise ArtefactError(
            f"the corpus does not add up: {totals.kept} kept + {totals.dropped} dropped + {totals.errors} errors "
            f"is not {read} read. This is a defect of fledge; please report it with the inputs."
        )


def funnel(ledger: Path, read: int) -> dict[str, Any]:
    """By stage and rule: pages that came in, pages that left, samples of these in Chinese and English."""
    counts: Counter[tuple[str, str]] = Counter()
    languages: dict[tuple[str, str], Counter[str]] = {}
    samples: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in rows(ledger):
        key = (row["stage"], row["rule"])
        counts[key] += 1
        language = row["language"] or ("zh" if han_count(row["excerpt"]) > 10 else "en")
        languages.setdefault(key, Counter())[language] += 1
        shown = samples.setdefault(key, {}).setdefault(language if language == "zh" else "en", [])
        if len(shown) < _SAMPLES:
            names = ("id", "url", "value", "threshold", "survivor", "excerpt")
            shown.append({name: row[name] for name in names})
    stages = []
    entering = read
    for stage in STAGES:
        here = sorted((key for key in counts if key[0] == stage), key=lambda key: (-counts[key], key))
        dropped = sum(counts[key] for key in here)
        reasons = [
            {"rule": key[1], "dropped": counts[key], "languages": dict(languages[key]), "samples": samples[key]}
            for key in here
        ]
        stages.append({"stage": stage, "in": entering, "dropped": dropped, "out": entering - dropped, "rules": reasons})
        entering -= dropped
    return {"read": read, "kept": entering, "stages": stages}
