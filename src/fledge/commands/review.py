"""``fledge corpus review``: a person judges a sample of what a corpus decided."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from fledge.commands.text import plain
from fledge.core.errors import ArtefactError

_SHOWN = 1200  # characters of a kept page; of one that left, the ledger has an excerpt


def review(corpus: Path, rule: str, count: int, seed: int, out: Path | None) -> None:
    rows = draw(corpus, rule, count, seed)
    if not rows:
        raise ArtefactError(f"{corpus}: nothing left by {rule!r}" if rule else f"{corpus}: its ledger is empty")
    path = out or Path(f"{corpus.name}-review.jsonl")
    judged = _read(path)
    console = Console(highlight=False)
    for number, row in enumerate(rows, 1):
        if row["id"] not in judged:
            answer = _ask(console, row, f"{number} of {len(rows)}")
            if answer == "q":
                break
            if answer != "s":
                judged[row["id"]] = answer == "y"
                with path.open("a", encoding="utf-8") as file:
                    print(json.dumps({"id": row["id"], "step": row["step"], "right": answer == "y"}), file=file)
    answers = [judged[row["id"]] for row in rows if row["id"] in judged]
    if answers:
        low, high = interval(sum(answers), len(answers))
        share = f"{sum(answers)} of {len(answers)} were right: {100 * sum(answers) / len(answers):.0f}%"
        console.print(f"{share}, 95% interval {100 * low:.0f}-{100 * high:.0f}%")
    console.print(f"judgements: {path}", soft_wrap=True)


def draw(corpus: Path, rule: str, count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` rows at random: those whose hashes with the seed are smallest, whatever the order of the files."""
    keyed = ((hashlib.blake2b(f"{seed} {row['id']}".encode()).digest(), row["id"], row) for row in _rows(corpus, rule))
    return [row for _, _, row in heapq.nsmallest(count, keyed, key=lambda item: item[:2])]


def _rows(corpus: Path, rule: str) -> Iterator[dict[str, Any]]:
    from fledge.corpus.tables import rows

    if rule == "kept":
        for row in rows(corpus / "documents", ["id", "url", "text"]):
            yield {"id": row["id"], "url": row["url"], "step": "kept", "text": row["text"][:_SHOWN]}
        return
    for row in rows(corpus / "ledger"):
        step = f"{row['stage']}.{row['rule']}"
        if rule in ("", row["stage"], step):
            about = f"{step}: {row['value']:.4g}, threshold {row['threshold']:.4g}"
            yield {"id": row["id"], "url": row["url"], "step": step, "text": row["excerpt"], "about": about}


def _ask(console: Console, row: dict[str, Any], place: str) -> str:
    question = "should it have stayed?" if row["step"] == "kept" else "was it right to leave?"
    title = f"{place} · {row.get('about', 'kept')}"
    console.print(Panel(Text(plain(row["text"])), title=plain(title), subtitle=plain(row["url"] or row["id"])))
    while True:
        answer = typer.prompt(f"{question} [y/n, s: skip, q: stop]", prompt_suffix=" ").strip().lower()[:1]
        if answer in ("y", "n", "s", "q"):
            return answer


def _read(path: Path) -> dict[str, bool]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["id"]: bool(row["right"]) for row in map(json.loads, file)}


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (1927)."""
    z = 1.96
    share, spread = right / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)
