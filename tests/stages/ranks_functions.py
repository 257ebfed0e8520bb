"""Functions of a user that answer differently on each rank: what a clock, a seed or a judge of its own may do."""

from __future__ import annotations

import os
import zlib

from fledge.core.records import Task


def draw(*of: str) -> float:
    """In [0, 1), from these texts and the rank: the first one's where there are no ranks."""
    return zlib.crc32("|".join([os.environ.get("RANK", "0"), *of]).encode()) / 2**32


def score(task: Task, reply: str) -> float:
    value = draw(task.id, reply)
    if value < 0.1:
        raise RuntimeError("this rank cannot tell")
    return value


def steps(task: Task, texts: list[str]) -> list[float]:
    values = [draw(task.id, text) for text in texts]
    return values if values[0] > 0.1 else []


def tool(task: Task, call: str) -> str:
    return str(int(draw(call) * 1000))


def first_alone(task: Task, reply: str) -> float:
    """Fails on the first rank."""
    if os.environ.get("RANK", "0") == "0":
        raise RuntimeError("no reward today")
    return 1.0
