"""Read and write records as JSON lines, JSON arrays or Parquet; a bad row is reported with file and line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from fledge.core.errors import DataError
from fledge.core.packed import open_packed
from fledge.core.records import Record
from fledge.core.row_shapes import to_record

R = TypeVar("R", bound=Record)
OnError = Literal["fail", "skip"]


def read_records(
    path: Path, kind: type[R], on_error: OnError = "fail", skipped: list[str] | None = None
) -> Iterator[R]:
    """Yield the records of a file. With ``on_error="skip"`` the reason for each bad row is appended to ``skipped``.

    `Preference` rows may also be in the implicit-prompt form (``chosen`` and ``rejected`` as whole dialogues, or as
    HH-RLHF's transcripts) or in the form of fine-tuning APIs (``input``, ``preferred_output``,
    ``non_preferred_output``); `Ranking` rows may be any of these, a ranking of two. `Conversation` rows may also be a
    pair, of which the better answer is taken, or use ``conversations`` with ``from``/``value``, or
    ``prompt``/``response``, or ``instruction``/``output``; what COIG, COIG-CQIA and OpenHermesPreferences say about a
    row beside that is kept in its ``meta``. `Task` rows may be ``question`` and ``answer`` as in GSM8K: the number
    after the last ``####``, or a bare number; or ``prompt``, ``instruction_id_list`` and ``kwargs`` as in IFEval.
    """
    for _, record in read_placed(path, kind, on_error, skipped):
        yield record


def read_placed(
    path: Path, kind: type[R], on_error: OnError = "fail", skipped: list[str] | None = None
) -> Iterator[tuple[str, R]]:
    """As `read_records`, each record with its place: ``path:line``, or as the file's format counts."""
    for place, row in read_rows(path, on_error, skipped):
        try:
            record = to_record(row, kind)
        except DataError as error:
            message = f"{place}: {error}"
            if on_error == "fail":
                raise DataError(f"{message}\n  (on_error=skip counts such rows and goes on)") from None
            if skipped is not None:
                skipped.append(message)
        else:
            yield place, record


def read_rows(path: Path, on_error: OnError = "fail", skipped: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """(place, row) of a file as it stands; what is no JSON is refused or skipped as in `read_records`."""
    yield from _rows(Path(path), on_error, skipped)


def write_jsonl(path: Path, rows: Iterable[BaseModel | dict[str, Any]]) -> int:
    """Write rows beside the place and rename when whole; returns how many."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    count = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            for row in rows:
                value = row.model_dump(mode="json", exclude_none=True) if isinstance(row, BaseModel) else row
                file.write(json.dumps(value, ensure_ascii=False) + "\n")
                count += 1
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return count


def open_text(path: Path) -> io.TextIOBase:
    """A text file, plain, .gz or .zst."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    return io.TextIOWrapper(open_packed(path), encoding="utf-8")


def _rows(path: Path, on_error: OnError, skipped: list[str] | None) -> Iterator[tuple[str, Any]]:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        yield from _parquet(path, on_error, skipped)
    elif name.endswith(".json"):
        with open_text(path) as file:
            try:
                values = json.load(file)
            except (ValueError, OSError, EOFError) as error:
                raise DataError(f"{path}: not valid JSON: {error}") from None
        if not isinstance(values, list):
            raise DataError(f"{path}: expected a list of objects at the top level")
        yield from ((f"{path}:item {i}", row) for i, row in enumerate(values))
    else:
        yield from _json_lines(path, on_error, skipped)


def _parquet(path: Path, on_error: OnError, skipped: list[str] | None) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        _complain(f"{path}: not a Parquet file: {error}", on_error, skipped)
        return
    yield from ((f"{path}:row {i}", row) for i, row in enumerate(rows))


def _json_lines(path: Path, on_error: OnError, skipped: list[str] | None) -> Iterator[tuple[str, Any]]:
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    with open_packed(path) as file:
        number = 0
        while True:
            try:
                line = file.readline()
            except (OSError, EOFError) as error:  # a packed file that was cut or is damaged
                _complain(f"{path}:after line {number}: cannot be read further: {error}", on_error, skipped)
                return
            if not line:
                return
            number += 1
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8"))
            except ValueError as error:  # UnicodeDecodeError is one
                _complain(f"{path}:{number}: not valid JSON: {error}", on_error, skipped)
                continue
            yield f"{path}:{number}", value


def _complain(message: str, on_error: OnError, skipped: list[str] | None) -> None:
    if on_error == "fail":
        raise DataError(f"{message}\n  (on_error=skip counts such rows and goes on)")
    if skipped is not None:
        skipped.append(message)
