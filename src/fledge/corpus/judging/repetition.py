"""N-grams that a page repeats, of many pages at once (Gopher, 2112.11446, table A1; CT-LLM's table, rows 16 and 17)."""

from __future__ import annotations

import numpy as np

from fledge.corpus.text.tokens import MULTIPLIER, Hashes, mix

TOP = (2, 3, 4)
AGAIN = (5, 6, 7, 8, 9, 10)


def shares(hashes: Hashes, page: np.ndarray, length: np.ndarray, pages: int) -> dict[str, np.ndarray]:
    """Of tokens (hash, page, characters; in order): for each page its shares of characters, (pages,) float64.

    ``top_N``: in the repetitions of the most frequent n-gram, of equals the longest. The first occurrence is no
    repetition: (count - 1) as in CT-LLM's table; Gopher counts it as well, which makes a text shorter than a few
    n-grams look repetitive. ``again_N``: covered by n-grams that occurred before in the page, each character once.
    """
    whole = np.bincount(page, length, minlength=pages)
    names = [*(f"top_{n}" for n in TOP), *(f"again_{n}" for n in AGAIN)]
    found: dict[str, np.ndarray] = {name: np.zeros(pages) for name in names}
    sums = np.concatenate(([0], np.cumsum(length)))
    salt = mix(page.astype(np.uint64) + np.uint64(1))
    keys, places = hashes, np.arange(len(hashes))  # n-grams that may occur twice, and where they begin
    for n in range(2, max(AGAIN) + 1):
        # An n-gram can only be repeated where the one without its last token is.
        inside = places + n - 1 < len(hashes)
        places, keys = places[inside], keys[inside]
        inside = page[places] == page[places + n - 1]
        places, keys = places[inside], keys[inside] * MULTIPLIER + hashes[places[inside] + n - 1]
        order, begin, size = _repeated(keys + salt[places])
        if not len(order):
            break
        if n in TOP:
            _top(found[f"top_{n}"], places[order[begin]], size, sums, page, n)
        if n in AGAIN:
            later = np.ones(len(order), dtype=bool)
            later[begin] = False
            covered = _covered(places[order[later]], n, len(hashes))
            found[f"again_{n}"] = np.bincount(page[covered], length[covered], minlength=pages)
        kept = np.sort(order)
        places, keys = places[kept], keys[kept]
    return {name: (part / np.maximum(whole, 1)).clip(max=1) for name, part in found.items()}


def _repeated(keys: Hashes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries whose key occurs more than once, those of a key together and in order; where each key's begin among
    them, and how many it has."""
    order = np.argsort(keys, kind="stable")
    if not len(order):
        return order, order, order
    ordered = keys[order]
    same = np.concatenate(([False], ordered[1:] == ordered[:-1], [False]))
    many = same[1:] | same[:-1]
    begin = np.flatnonzero(~same[:-1][many])
    return order[many], begin, np.diff(np.concatenate((begin, [int(many.sum())])))


def _top(into: np.ndarray, first: np.ndarray, size: np.ndarray, sums: np.ndarray, page: np.ndarray, n: int) -> None:
    """Of each page's most frequent n-gram, (count - 1) times its characters."""
    of = page[first]
    most = np.zeros(len(into), dtype=np.int64)
    np.maximum.at(most, of, size)
    best = size == most[of]
    np.maximum.at(into, of[best], (size[best] - 1.0) * (sums[first[best] + n] - sums[first[best]]))


def _covered(places: np.ndarray, n: int, tokens: int) -> np.ndarray:
    """Tokens of the n-grams that begin at these places, each once, in order."""
    mask = np.zeros(tokens, dtype=bool)
    for step in range(n):
        mask[places + step] = True
    return np.flatnonzero(mask)
