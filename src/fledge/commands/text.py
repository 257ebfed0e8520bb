"""Text of models and pages for a terminal: nothing in it may act on the terminal."""

from __future__ import annotations

import unicodedata

_KEPT = {"\n", "\t"}
_JOINER = "\u200d"  # joins emoji; harmless
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def plain(text: str) -> str:
    """``text`` without control characters, escape sequences' first bytes, and marks that reorder text."""
    return "".join(c for c in text if c in _KEPT or c == _JOINER or unicodedata.category(c) not in _CATEGORIES)
