"""The side table of a corpus: everything that was measured on every page that was extracted, kept or not.

``values/*.parquet``, a row a page in the order of reading: id, url, language, the stage and rule by which it left
before duplicates were looked for (empty where it stayed), an excerpt, and a column for each value, null where it was
not measured (rules of another language). What other thresholds would do is computed from it (replay.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fledge.corpus.pages import Drop, Page, excerpt_of
from fledge.corpus.tables import clean

ABOUT = ("id", "url", "language", "stage", "rule", "excerpt")


def values_table(results: Sequence[Page | Drop], names: Sequence[str]) -> pa.Table:
    """Of what became of the pages of a shard; what never was a page has no row. ``names``: `Chain.values`."""
    measured = [result for result in results if result.values]
    about = {
        "id": [r.id for r in measured],
        "url": clean([r.url for r in measured]),
        "language": [r.language for r in measured],
        "stage": [r.stage if isinstance(r, Drop) else "" for r in measured],
        "rule": [r.rule if isinstance(r, Drop) else "" for r in measured],
        "excerpt": clean([r.excerpt if isinstance(r, Drop) else excerpt_of(r.text) for r in measured]),
    }
    return pa.table({**about, **{name: [r.values.get(name) for r in measured] for name in names}}, values_schema(names))


def values_schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([*((name, pa.string()) for name in ABOUT), *((name, pa.float64()) for name in names)])


def read_values(path: Path) -> tuple[dict[str, list[str]], dict[str, np.ndarray]]:
    """One file: what is said about the pages, and their values, (pages,) float64 with NaN where none was measured."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    about = {name: table[name].to_pylist() for name in ABOUT}
    numbers = [name for name in table.column_names if name not in ABOUT]
    return about, {name: table[name].to_numpy().astype(np.float64) for name in numbers}
