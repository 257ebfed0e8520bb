"""The corpus task: input shard + configuration -> output shard + ledger shard. Pure, atomic, idempotent.

A shard is worked through in chunks of some hundred items. A chunk's results appear as one file when they are whole,
and the shard's folder when all chunks are there, so an attempt that is killed loses its last chunk: the next one reads
past the items that are judged, which is cheap beside judging them. Every attempt makes the same chunks.

The only thing an attempt needs besides its arguments is a folder that all attempts see, on whatever machine they run.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from fledge.core.artefact import write_json
from fledge.core.errors import ArtefactError, DataError, FledgeError
from fledge.corpus.chain import Chain, ChainConfig
from fledge.corpus.pages import Drop, Found, Page, Refused, drop_page
from fledge.corpus.reading.inputs import Part, Shard
from fledge.corpus.reading.read import Item, read_part
from fledge.corpus.running.results import Counts, Results, attempt, chunks, merge, write_chunk

CHUNK_ITEMS = 256
CHUNK_BYTES = 4 << 20  # of content: large documents make chunks of fewer

_chains: dict[str, Chain] = {}  # one per process: the index of test items is built once

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Lost:
    """An item that could not be worked on: it hung, or the process died of it."""

    stage: str  # read: the rest of its file is lost with it; extract: itself alone
    part: int  # the file of the shard that was read
    rule: str
    value: float
    threshold: float


@dataclass
class Trouble:
    """What attempts at a shard died of, kept beside its chunks, so that the next one knows. Items by number."""

    careful: int = -1  # the chunk that begins here is judged item by item, and each is announced
    crashes: dict[int, int] = field(default_factory=dict)  # in a row, at the last item that the process died of
    lost: dict[int, Lost] = field(default_factory=dict)

    @classmethod
    def read(cls, draft: Path) -> Trouble:
        try:
            value = json.loads((draft / "trouble.json").read_text())
        except FileNotFoundError:
            return cls()
        crashes = {int(item): count for item, count in value["crashes"].items()}
        return cls(value["careful"], crashes, {int(item): Lost(**lost) for item, lost in value["lost"].items()})

    def write(self, draft: Path) -> None:
        draft.mkdir(parents=True, exist_ok=True)
        write_json(draft / "trouble.json", asdict(self))


def place_of(folder: Path, shard: Shard) -> Path:
    """Where the finished shard stands."""
    return folder / f"shard-{shard.index:05d}"


def draft_of(folder: Path, shard: Shard) -> Path:
    """Where its chunks are until then."""
    return folder / f".shard-{shard.index:05d}"


def finished(folder: Path, shard: Shard) -> Counts | None:
    """The counts of a shard that is done."""
    try:
        counts: Counts = json.loads((place_of(folder, shard) / "counts.json").read_text())
    except FileNotFoundError:
        return None
    return counts


def run_shard(shard: Shard, config: ChainConfig, folder: Path, say: Say = lambda message: None) -> Counts:
    """Read and judge one shard; returns its counts (``read``, ``kept``, ``dropped``, ``errors``, ``masked``).

    Writes ``folder/shard-NNNNN/`` with the candidates (before duplicates), their signatures, values and the ledger
    (`merge` in results.py). A finished shard is not read again. ``say`` hears what the attempt is
    about to do (``doing``: start, read, extract or write), at which ``chunk``, and where one is gone through with care
    at which ``item``, ``part`` and ``place``; and each finished chunk (``items``, and ``bytes`` of the shard so far).

    Raises `DataError` for what cannot be read where ``on_error`` is ``fail``; `ArtefactError` where nothing can be
    written.
    """
    counts = finished(folder, shard)
    if counts is not None:
        return counts
    try:
        return _attempt(shard, config, folder, say)
    except OSError as error:
        counts = finished(folder, shard)  # another attempt, taken for dead, may have been faster
        if counts is not None:
            return counts
        raise no_room(folder, error) or error from None


def no_room(folder: Path, error: OSError) -> ArtefactError | None:
    """What to do about a full disk; None for another error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return ArtefactError(
        f"{folder}: {os.strerror(error.errno)}. Make room and give the same command again: what is finished is kept, "
        "and the run goes on behind it."
    )


def _attempt(shard: Shard, config: ChainConfig, folder: Path, say: Say) -> Counts:
    draft = draft_of(folder, shard)
    draft.mkdir(parents=True, exist_ok=True)
    trouble = Trouble.read(draft)
    say({"doing": "start"})
    chain = chain_of(config)
    done = chunks(draft)
    begin, paths = done[-1][0] if done else 0, [path for _, path in done]
    reader = _Reader(shard, config, trouble, say)
    found = islice(reader, config.read.most_per_shard or None)
    for number, _ in enumerate(islice(found, begin)):
        if number % CHUNK_ITEMS == 0:
            say({"doing": "read"})  # a sign of life
    while True:
        say({"doing": "read", "chunk": begin})
        careful = reader.careful = trouble.careful == begin
        items = list(_chunk(found))
        if not items:
            break
        say({"doing": "extract", "chunk": begin})
        judged = _judged(chain, items, begin, careful, trouble, say)
        say({"doing": "write", "chunk": begin})
        end = begin + len(items)
        paths.append(write_chunk(draft, begin, end, Results(judged, len(items), chain).tables()))
        say({"items": len(items), "bytes": reader.bytes})
        begin = end
    say({"doing": "write"})
    counts = _put_in_place(shard, chain, folder, paths, begin)
    shutil.rmtree(draft, ignore_errors=True)
    return counts


def _put_in_place(shard: Shard, chain: Chain, folder: Path, paths: Sequence[Path], items: int) -> Counts:
    whole = draft_of(folder, shard) / f"whole-{attempt()}"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    counts = merge(paths, chain, items, whole)
    os.replace(whole, place_of(folder, shard))
    return counts


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Reader:
    """The items of a shard, numbered from 0. Where ``careful``, it says what it reads before every item."""

    def __init__(self, shard: Shard, config: ChainConfig, trouble: Trouble, say: Say) -> None:
        self.shard, self.config, self.trouble, self.say = shard, config, trouble, say
        self.careful = False
        self.number = 0
        self.bytes = 0  # of the shard, so far
        self._items = self._read()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        return next(self._items)

    def _read(self) -> Iterator[Item]:
        before = 0
        for index, part in enumerate(self.shard.parts):
            size = part.path.stat().st_size if part.path.exists() else 0
            offset = 0
            for item in self._read_part(index, part):
                # In a file that is packed as a whole, offsets count what was packed, and may be larger than the file.
                offset = item.offset
                self.bytes = before + min(offset, size)
                self.number += 1
                yield item
            lost = self._lost(index)
            if lost is not None:
                detail = f"{part.path}: given up behind offset {offset}: {describe(lost)}"
                self.number += 1
                yield Refused(part.label, offset, lost.rule, detail, error=True)
            before += size
            self.bytes = before

    def _read_part(self, index: int, part: Part) -> Iterator[Item]:
        items = read_part(part, self.config.read)
        while self._lost(index) is None:
            if self.careful:
                self.say({"doing": "read", "item": self.number, "part": index, "place": str(part.path)})
            item = next(items, None)
            if item is None:
                return
            yield item

    def _lost(self, part: int) -> Lost | None:
        lost = self.trouble.lost.get(self.number)
        return lost if lost is not None and (lost.stage, lost.part) == ("read", part) else None


def _chunk(reader: Iterator[Item]) -> Iterator[Item]:
    size = 0
    for item in islice(reader, CHUNK_ITEMS):
        yield item
        size += len(item.content) if isinstance(item, Found) else 0
        if size >= CHUNK_BYTES:
            return


# ---- judging ---------------------------------------------------------------------------------------------------------


def _judged(
    chain: Chain, items: Sequence[Item], begin: int, careful: bool, trouble: Trouble, say: Say
) -> Sequence[Page | Drop]:
    """The results of a chunk. One by one where care is needed, which gives the same."""
    numbers = range(begin, begin + len(items))
    if not careful and not any(number in trouble.lost for number in numbers):
        try:
            return judge(chain, items)
        except FledgeError:
            raise
        except Exception:  # one by one shows whose it is
            return [_judged_alone(chain, item) for item in items]
    results: list[Page | Drop] = []
    for number, item in zip(numbers, items, strict=True):
        lost = trouble.lost.get(number)
        if lost is not None and lost.stage != "read":
            results.append(_drop(item, lost.stage, lost.rule, lost.value, lost.threshold, describe(lost)))
            continue
        if careful:
            say({"doing": "extract", "item": number, "part": -1, "place": f"{item.source}, offset {item.offset}"})
        results.append(_judged_alone(chain, item))
    return results


def _judged_alone(chain: Chain, item: Item) -> Page | Drop:
    try:
        return judge(chain, [item])[0]
    except FledgeError:
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        if chain.config.on_error == "fail":
            raise DataError(f"{item.source}, offset {item.offset}: {detail} (on_error=skip goes on)") from error
        return _drop(item, "extract", "exception", 1.0, 0.0, detail)


def judge(chain: Chain, items: Sequence[Found | Refused]) -> Sequence[Page | Drop]:
    """All items of a chunk, in their order. The only place that calls the chain."""
    return chain.judge(items)


def _drop(item: Item, stage: str, rule: str, value: float, threshold: float, detail: str) -> Drop:
    kind = item.kind if isinstance(item, Found) else "text"
    page = Page("", item.source, item.offset, kind, item.url)
    return drop_page(page, stage, rule, value, threshold, detail=detail, error=True)


def describe(lost: Lost) -> str:
    if lost.rule == "timeout":
        return f"took longer than {lost.threshold:g} seconds (seconds_per_document)"
    return f"the process died {lost.value:g} times at it: killed for its memory, or a fault in a library"


def chain_of(config: ChainConfig) -> Chain:
    """The chain of this process: built once, while the configuration stays the same."""
    key = config.model_dump_json()
    if key not in _chains:
        _chains.clear()
        _chains[key] = Chain(config)
        # What is loaded when it is first used is not the time of the first document.
        judge(_chains[key], [Found("", 0, "html", b"<p>This is a page like any other.</p>")])
    return _chains[key]
