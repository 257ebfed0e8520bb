"""From the shards' candidates to the corpus: duplicates out, documents and ledger written, everything counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fledge.core.errors import ArtefactError
from fledge.corpus.chain import STAGES, ChainConfig
from fledge.corpus.copies import duplicates
from fledge.corpus.copies.grouping import Grouping, Groups, Leaving
from fledge.corpus.copies.signatures import FOLDER, keep_signatures
from fledge.corpus.pages import Drop, excerpt_of
from fledge.corpus.registry import Registry
from fledge.corpus.tables import ledger_table, rows, write_table
from fledge.corpus.text.tokens import han_count

_SAMPLES = 3  # of dropped pages, by rule and language, in the funnel


@dataclass
class Totals:
    """What the corpus came to."""

    documents: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)  # kept, by the name of the input
    read: Counter[str] = field(default_factory=Counter)  # all records, by the name of the input
    registry: Registry = field(default_factory=Registry)
    dropped: int = 0
    errors: int = 0
    work: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> int:
        return sum(self.documents.values())


def finish(
    folders: Sequence[Path], config: ChainConfig, out: Path, *, memory: int | None = None, threads: int = 1
) -> Totals:
    """Write ``out``'s documents, ledger and signatures, a file for each shard.

    Documents get two columns: ``cluster``, how many documents (itself and what left for it) each stands for, and
    ``repeat``, how often it is to be trained on (`DuplicatesConfig.repeat`). ``memory`` is MiB for the global step.
    """
    memory = memory or config.duplicates.memory
    with Grouping(folders, config.duplicates, out / ".grouping", memory, threads) as groups:
        totals = Totals(work=groups.work)
        for number, folder in enumerate(folders):
            _finish_shard(number, folder, groups, config, out, totals)
    return totals


def _finish_shard(
    number: int, folder: Path, groups: Groups, config: ChainConfig, out: Path, totals: Totals
) -> None:
    name = f"part-{number:05d}.parquet"
    table = pq.read_table(folder / "documents.parquet")
    leaving, clusters = groups.of(number)
    stays = np.ones(len(table), dtype=bool)
    stays[[item.row for item in leaving]] = False
    sizes = np.ones(len(table), dtype=np.int64)
    sizes[list(clusters)] = list(clusters.values())
    times = np.array([times for _, times in config.duplicates.repeat], dtype=np.int32)
    steps = np.searchsorted([size for size, _ in config.duplicates.repeat], sizes, side="right") - 1
    table = table.append_column("cluster", pa.array(sizes)).append_column("repeat", pa.array(times[steps]))
    kept = table.filter(pa.array(stays))
    gone = table.take([item.row for item in leaving]).to_pylist() if leaving else []
    drops = [_drop(row, item, config) for row, item in zip(gone, leaving, strict=True)]
    ledger = pa.concat_tables([pq.read_table(folder / "ledger.parquet"), ledger_table(drops)])
    write_table(out / "documents" / name, kept)
    write_table(out / "ledger" / name, ledger)
    if config.duplicates.sketch:
        keep_signatures(folder, stays, config.duplicates, out / FOLDER / name)
    _count(totals, kept, ledger)


def _drop(row: dict[str, Any], item: Leaving, config: ChainConfig) -> Drop:
    rule = "exact" if item.exact else "near"
    threshold = 1.0 if item.exact else config.duplicates.jaccard
    return Drop(
        row["id"], row["source"], row["offset"], row["url"], row["language"], "duplicates", rule, duplicates.VERSION,
        item.similarity, threshold, item.survivor, excerpt_of(row["text"]),
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
    totals.registry.add(kept)
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
