"""Plain data between a candidate and its tests, as JSON lines.

Only values travel, never objects: what a candidate returns cannot carry behaviour (an `__eq__` that always says yes)
into the process that judges it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

LONGEST = 4 << 20  # bytes of a line
ITEMS = 10_000  # that are drawn from an iterator


_GROUPS: dict[str, Callable[[list[Any]], Any]] = {"l": list, "t": tuple, "s": set, "z": frozenset, "n": iter}
_SIMPLE: dict[str, Callable[[str], Any]] = {
    "i": lambda text: int(text, 16),
    "f": float,
    "b": bytes.fromhex,
    "a": bytearray.fromhex,
    "e": Decimal,
}


class Unsendable(TypeError):
    """A value that is not plain data."""


def pack(value: Any) -> Any:
    """JSON-able form of None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range,
    Fraction, Decimal and iterators (as their items). Subclasses travel as their base. Raises Unsendable."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        value = int.__index__(value)  # of the number itself: a subclass may say another
        return value if value.bit_length() < 4096 else {"i": hex(value)}
    if isinstance(value, float):
        return {"f": float.__repr__(value)}
    if isinstance(value, complex):
        return {"c": [pack(value.real), pack(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {"b" if isinstance(value, bytes) else "a": value.hex()}
    if isinstance(value, dict):
        return {"d": [[pack(key), pack(item)] for key, item in dict.items(value)]}
    for kind, mark in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z")):
        if isinstance(value, kind):
            return {mark: [pack(item) for item in value]}
    if isinstance(value, range):
        return {"r": [value.start, value.stop, value.step]}
    if isinstance(value, Fraction):
        return {"q": [pack(value.numerator), pack(value.denominator)]}
    if isinstance(value, Decimal):
        return {"e": str(value)}
    if isinstance(value, Iterator):
        items: list[Any] = []
        for item in value:
            if len(items) == ITEMS:
                raise Unsendable(f"an iterator of more than {ITEMS} items")
            items.append(pack(item))
        return {"n": items}
    raise Unsendable(f"a value of type {type(value).__name__} cannot be passed to or from the code")


def unpack(value: Any) -> Any:
    """The value that `pack` was given."""
    if not isinstance(value, dict):
        return value
    ((mark, inner),) = value.items()
    if mark == "d":
        return {unpack(key): unpack(item) for key, item in inner}
    if mark in _GROUPS:
        return _GROUPS[mark]([unpack(item) for item in inner])
    if mark in _SIMPLE:
        return _SIMPLE[mark](inner)
    if mark == "c":
        return complex(unpack(inner[0]), unpack(inner[1]))
    if mark == "r":
        return range(*inner)
    if mark == "q":
        return Fraction(unpack(inner[0]), unpack(inner[1]))
    raise ValueError(f"unknown mark {mark!r}")


class Line:
    """JSON lines over two file descriptors."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._in, self._out = incoming, outgoing
        self._rest = b""

    def send(self, message: Any) -> None:
        """Raises OSError when the other side is gone."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._out, data) :]

    def receive(self) -> Any:
        """The next message. Raises EOFError when the other side is gone, ValueError for what is no message."""
        parts = [self._rest]
        size = len(self._rest)
        while b"\n" not in parts[-1]:
            part = os.read(self._in, 1 << 16)
            if not part:
                raise EOFError("the other side is gone")
            parts.append(part)
            size += len(part)
            if size > LONGEST:
                raise ValueError("a value of more than 4 MiB")
        line, self._rest = b"".join(parts).split(b"\n", 1)
        return json.loads(line)
