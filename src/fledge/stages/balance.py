"""Balanced sampling: every tag as often as every other, however many rows it has (Qwen1, 2309.16609, §3.2.1: prompts
for preferences drawn by some 6,600 tags)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from fledge.core.errors import DataError
from fledge.stages.training import CursorOrder, EpochOrder


class TagOrder(CursorOrder):
    """Draws a tag, then a row of it. Tags come in rounds, a fresh permutation each, so that after every round all have
    been drawn equally often; the rows of a tag come in its own permutations. A row of several tags stands under each.
    The cursor is one number."""

    def __init__(self, tags: Sequence[Sequence[str]], seed: int) -> None:
        """``tags`` of every row. Raises DataError where no row has one."""
        rows: dict[str, list[int]] = {}
        for row, names in enumerate(tags):
            for name in set(names):
                rows.setdefault(name, []).append(row)
        if not rows:
            raise DataError("balance: no row has a tag")
        self.names = sorted(rows)
        self.count, self.taken = len(tags), 0
        self._rows = [np.array(rows[name]) for name in self.names]
        self._rounds = EpochOrder(len(self.names), seed, stream=1)
        # by name: another tag more or less does not change the order within this one
        self._within = [
            EpochOrder(len(rows[name]), seed, xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")))
            for name in self.names
        ]

    def take(self) -> int:
        turn, place = divmod(self.taken, len(self.names))
        tag = int(self._rounds.of_epoch(turn)[place])
        order = self._within[tag]
        epoch, at = divmod(turn, order.count)  # a tag is drawn once a round
        self.taken += 1
        return int(self._rows[tag][order.of_epoch(epoch)[at]])

    @property
    def never_taken(self) -> int:
        """Rows that have not been drawn so far."""
        turns, rest = divmod(self.taken, len(self.names))
        this_round = {int(tag) for tag in self._rounds.of_epoch(turns)[:rest]}
        drawn: set[int] = set()
        for tag, (rows, order) in enumerate(zip(self._rows, self._within, strict=True)):
            count = turns + (tag in this_round)
            drawn.update(rows.tolist() if count >= len(rows) else rows[order.of_epoch(0)[:count]].tolist())
        return self.count - len(drawn)

    def account(self) -> dict[str, Any]:
        """What was drawn of what there is: tags, rows of the rarest and of the commonest tag, draws of each tag, and
        how often the rows of the rarest have come."""
        sizes = [len(rows) for rows in self._rows]
        draws = self.taken / len(self.names)
        return {
            "tags": len(self.names), "rows_of_rarest": min(sizes), "rows_of_commonest": max(sizes),
            "draws_of_each": round(draws, 3), "epochs_of_rarest": round(draws / min(sizes), 3),
            "epochs_of_commonest": round(draws / max(sizes), 3),
        }  # fmt: skip
