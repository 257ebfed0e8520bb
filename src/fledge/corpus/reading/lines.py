"""Lines of a file, packed or plain. A line beyond the limit is passed over while reading: it is never held."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fledge.core.packed import open_packed

BROKEN = (EOFError, OSError)
_PIECE = 64 << 10


@dataclass(slots=True)
class Line:
    """One line without its end. ``data`` is None where it is longer than the limit."""

    number: int  # from 1
    offset: int  # in bytes, of the unpacked file
    data: bytes | None
    length: int  # in bytes, also of a line that is not held
    ended: bool = True  # by a line feed; the last line may end with the file
    problem: str = ""  # why the file broke off here; the line is what was left


def read_lines(path: Path, limit: int) -> Iterator[Line]:
    """Lines in order. Holds one piece of the file and at most ``limit`` bytes of the line that is being read.

    A file that breaks off (cut, damaged) gives a last line with its ``problem``.
    """
    number, offset, length = 1, 0, 0  # of the line that is being read
    held: list[bytes] = []
    problem = ""
    with open_packed(path) as file:
        while not problem:
            try:
                piece = file.read1(_PIECE)
            except BROKEN as error:
                problem, piece = str(error) or type(error).__name__, b""
            if not piece:
                break
            *ends, rest = piece.split(b"\n")
            for end in ends:
                length += len(end)
                held.append(end)
                yield Line(number, offset, b"".join(held) if length <= limit else None, length)
                number, offset, length = number + 1, offset + length + 1, 0
                held.clear()
            length += len(rest)
            if length <= limit:
                held.append(rest)
            else:
                held.clear()
    if length or problem:
        yield Line(number, offset, b"".join(held) if length <= limit else None, length, False, problem)
