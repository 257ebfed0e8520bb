"""Stage records: files in other people's shapes -> conversations, preferences or tasks, as many as wanted.

Each source is a file in a shape that `fledge.core.readers` knows, or in any other with ``fields`` that say where its
parts are. What is left out is counted by reason; rows that are unusable are listed in ``skipped.jsonl``. Every record's
``meta`` names the file and the row that it came from.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from fledge.core import config as core_config
from fledge.core.artefact import produce
from fledge.core.bench import Bench
from fledge.core.errors import DataError
from fledge.core.progress import progress
from fledge.core.readers import OnError, read_rows, write_jsonl
from fledge.core.records import Conversation, Message, Preference, Record, Task
from fledge.core.row_shapes import to_api, to_record

_KINDS: dict[str, type[Record]] = {"conversation": Conversation, "preference": Preference, "task": Task}
_PLACE = re.compile(r"\{([^{}]+)\}")
_TYPICAL_TOKENS = 200  # of a record, for the forecast


class Source(core_config.Config):
    """One file, and how its rows become records."""

    path: Path
    fields: dict[str, str] = Field(
        default_factory=dict,
        description="key of the record -> template of the row's keys, such as '{instruction} {instances.0.input}'; "
        "without fields the rows are taken as they are",
    )
    match: dict[str, str] = Field(
        default_factory=dict,
        description="key -> regular expression for its whole text, whose first group stays; other rows are skipped",
    )
    where: dict[str, str] = Field(
        default_factory=dict,
        description="key, with dots between levels -> value; rows that have another are left out and counted",
    )
    imitate_chosen: bool = Field(False, description="the rows are preferences; the chosen answer is the one to imitate")
    skill: str = Field("", description="of tasks that name none")
    language: str = Field("", description="of records that name none")
    max_characters: int | None = Field(None, ge=1, description="longer records are left out and counted")
    limit: int | None = Field(None, ge=1, description="at most so many, drawn by seed from all that are usable")

    @field_validator("match")
    @classmethod
    def _patterns(cls, value: dict[str, str]) -> dict[str, str]:
        for key, pattern in value.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{key}: not a regular expression: {error}") from None
            if not groups:
                raise ValueError(f"{key}: the expression needs a group (in parentheses), the part that stays")
        return value


class Config(core_config.Config):
    kind: Literal["conversation", "preference", "task"]
    shape: Literal["records", "api"] = Field(
        default="records",
        description="api: preferences as fine-tuning APIs take them (input, preferred_output, non_preferred_output)",
    )
    sources: tuple[Source, ...] = Field(min_length=1)
    on_error: OnError = "fail"
    seed: int = 0

    @model_validator(mode="after")
    def _shape_of_pairs(self) -> Config:
        if self.shape == "api" and self.kind != "preference":
            raise ValueError(f"shape=api is one of preferences, not of kind {self.kind!r}")
        return self


def run(config: Config, out: Path, redo: bool = False) -> None:
    """Write ``records.jsonl`` at ``out``. Raises `DataError` where a source has no usable row."""
    for source in config.sources:
        if source.imitate_chosen and config.kind != "conversation":
            raise DataError(f"{source.path}: imitate_chosen makes conversations, not records of kind {config.kind!r}")
    with produce(
        out, kind="records", stage="records", config=config, inputs={"sources": [s.path for s in config.sources]},
        seed=config.seed, redo=redo,
    ) as work:  # fmt: skip
        if work.done:
            return
        kept: list[Record] = []
        skipped: list[dict[str, str]] = []
        seen: set[str] = set()
        counts = []
        with progress("records", len(config.sources), unit="files") as bar:
            for number, source in enumerate(config.sources):
                taken, count, bad = _take(config, source, seen, random.Random(f"{config.seed}/{number}"))
                kept += taken
                counts.append({"file": _short(source.path), **count})
                skipped += [{"place": text.partition(": ")[0], "reason": text.partition(": ")[2]} for text in bad]
                bar.advance(1)
        write_jsonl(work.folder / "records.jsonl", map(to_api, kept) if config.shape == "api" else kept)
        if skipped:
            write_jsonl(work.folder / "skipped.jsonl", skipped)
        work.metrics |= {
            "records": len(kept), "skipped": len(skipped), "sources": counts,
            "skipped_reasons": [f"{row['place']}: {row['reason']}" for row in skipped[:20]],
        }  # fmt: skip


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Rows at most: the limits, or the lines of the file where there is none."""
    rows = 0
    for source in config.sources:
        rows += source.limit if source.limit is not None else sum(1 for _ in read_rows(source.path, "skip"))
    return {
        "records_rows": rows, "records_mean_tokens": _TYPICAL_TOKENS, "records_groups": len(config.sources),
        "seconds": 1.0 + rows * 1e-4,
    }  # fmt: skip


def _take(
    config: Config, source: Source, seen: set[str], rng: random.Random
) -> tuple[list[Record], dict[str, int], list[str]]:
    """Records of a source, what became of its rows, and the reasons of those skipped."""
    bad: list[str] = []
    counts: Counter[str] = Counter()
    usable: list[Record] = []
    for record in _records(config, source, bad, counts):
        key = _text(record)
        if source.max_characters is not None and len(key) > source.max_characters:
            counts["too_long"] += 1
        elif key in seen:
            counts["repeated"] += 1
        else:
            seen.add(key)
            usable.append(record)
    if not usable:
        first = f"; first: {bad[0]}" if bad else ""
        raise DataError(f"{source.path}: no usable row; skipped {len(bad)}, left out {dict(counts)}{first}")
    kept = usable
    if source.limit is not None and len(usable) > source.limit:
        kept = [usable[place] for place in sorted(rng.sample(range(len(usable)), source.limit))]
    return kept, {
        "rows": len(usable) + counts.total() + len(bad), "used": len(kept), "skipped": len(bad),
        "elsewhere": counts["elsewhere"], "too_long": counts["too_long"], "repeated": counts["repeated"],
        "over_limit": len(usable) - len(kept),
    }, bad  # fmt: skip


def _records(config: Config, source: Source, bad: list[str], counts: Counter[str]) -> Iterator[Record]:
    for place, row in read_rows(source.path, config.on_error, bad):
        if not _is_wanted(source, row):
            counts["elsewhere"] += 1
            continue
        try:
            record = _record(config.kind, source, row, f"{_short(source.path)}{place.removeprefix(str(source.path))}")
            if config.shape == "api":
                to_api(record)  # what cannot be said in that shape is refused here, with its place
            yield record
        except DataError as error:
            if config.on_error == "fail":
                raise DataError(f"{place}: {error}\n  (on_error=skip counts such rows and goes on)") from None
            bad.append(f"{place}: {error}")


def _is_wanted(source: Source, row: Any) -> bool:
    try:
        return all(str(_at(key, row)) == value for key, value in source.where.items())
    except DataError:
        return False


def _record(kind: str, source: Source, row: Any, place: str) -> Record:
    if not isinstance(row, dict):
        raise DataError(f"expected an object, found {type(row).__name__}")
    row = {key: fill(template, row) for key, template in source.fields.items()} if source.fields else dict(row)
    for key, pattern in source.match.items():
        found = re.fullmatch(pattern, row[key]) if isinstance(row.get(key), str) else None
        if found is None:
            raise DataError(f"match: {key!r} does not match {pattern!r}")
        row[key] = found[1]
    record = to_record(row, Preference if source.imitate_chosen else _KINDS[kind])
    assert isinstance(record, Conversation | Preference | Task)
    meta = {**record.meta, "source": place}
    if isinstance(record, Task):
        changes = {"meta": meta, "skill": record.skill or source.skill, "language": record.language or source.language}
        return record.model_copy(update=changes)
    if source.language:
        meta.setdefault("language", source.language)
    if source.imitate_chosen:
        assert isinstance(record, Preference)
        messages = (*record.prompt, Message(role="assistant", content=record.chosen))
        return Conversation(messages=messages, meta=meta)
    return record.model_copy(update={"meta": meta})


def _short(path: Path) -> str:
    """Folder and name: enough to know a file by, wherever the data lie."""
    return f"{path.parent.name}/{path.name}"


def fill(template: str, row: dict[str, Any]) -> Any:
    """A template with ``{key}`` and ``{key.0.key}`` put in; one that is a single place gives the value as it is.

    Raises `DataError` for a key that the row lacks.
    """
    whole = _PLACE.fullmatch(template)
    if whole:
        return _at(whole[1], row)
    return _PLACE.sub(lambda match: str(_at(match[1], row)), template).strip()


def _at(path: str, row: dict[str, Any]) -> Any:
    value: Any = row
    for key in path.split("."):
        if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            here = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
            raise DataError(f"fields: nothing at {path!r} ({key!r} is not in {here})")
    return value


def _text(record: Record) -> str:
    """All that is said in a record: its length, and whether it was there before."""
    assert isinstance(record, Conversation | Preference | Task)
    messages = record.prompt if isinstance(record, Preference) else record.messages
    texts = [message.content for message in messages]
    if isinstance(record, Preference):
        texts += [record.chosen, record.rejected]
    return "\n".join(texts)
