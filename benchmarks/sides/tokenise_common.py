"""What both sides of `tokenise.py` share: the digest of all ids, and the line that a side prints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import numpy as np


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Of all ids in order, int32, wherever they are cut."""
    result = hashlib.blake2b(digest_size=12)
    for array in arrays:
        result.update(array.astype(np.int32).tobytes())
    return result.hexdigest()


def say(
    size: int, seconds: float, before: float, ids: str, tokens: int, packages: tuple[str, ...], **more: Any
) -> None:
    """``before``: seconds from the start of the script to the start of the work: imports."""
    facts = {
        "rate": size / seconds / 1e6, "first_step_seconds": round(before, 2), "seconds": round(seconds, 2), "ids": ids,
        "encoded_tokens": tokens, "versions": {name: metadata.version(name) for name in packages}, **more,
    }  # fmt: skip
    print(json.dumps(facts), flush=True)
