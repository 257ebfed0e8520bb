"""The order in which pretraining reads pieces of documents, where a mixture says how much of what.

Every group of documents (corpus/writing/mixture.py) has a seeded order of its own, a fresh permutation an epoch. They
are merged by fair queueing: the next piece comes from the group whose piece is due first, that is, whose tokens up to
the middle of that piece are the least part of what the group is to have. So every stretch of the run has the mixture,
not only its end, and the order is a function of shards, mixture, length of the run and seed alone. How much of a group
has been taken is all there is to a position in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xxhash

from fledge.core.errors import DataError
from fledge.corpus.writing.groups import AXES, UNKNOWN, Group, group_documents, printable
from fledge.corpus.writing.mixture import Mixture, Plan, allot
from fledge.corpus.writing.shards import TokenShards
from fledge.stages.training import EpochOrder

_AS_OFTEN_AS_NEEDED = 1e9  # epochs


class MixedOrder:
    """Pieces of documents by number, of every group as much as ``plan`` says at every moment.

    ``pieces[g]``: numbers of the pieces of group g, one for each time that it is counted in an epoch. ``sizes``:
    (pieces,) tokens of every piece.
    """

    def __init__(self, plan: Plan, pieces: Sequence[np.ndarray], sizes: np.ndarray, max_epochs: float, seed: int):
        self.plan = plan
        self.queues = [
            _Queue(numbers, sizes[numbers], tokens, max_epochs, seed, group.name)
            for group, numbers, tokens in zip(plan.groups, pieces, plan.planned.tolist(), strict=True)
        ]
        self._active = [place for place, queue in enumerate(self.queues) if queue.due < np.inf]
        if not self._active:
            raise DataError("mixture: the documents that take part hold nothing to predict")
        self._line_up()

    def take(self) -> int:
        """The number of the next piece. A group that has been read ``max_epochs`` times leaves the line; the plan has
        room for all the tokens of the run, so that only the last batch's surplus can find no group in it."""
        if not self._line:
            self._line_up()
        queue = self.queues[self._line[0][1]]
        piece = queue.take()
        if queue.taken < queue.limit or self._surplus:
            heapq.heapreplace(self._line, (queue.due, self._line[0][1]))
        else:
            heapq.heappop(self._line)
        return piece

    def take_many(self, count: int) -> list[int]:
        return [self.take() for _ in range(count)]

    def _line_up(self) -> None:
        """Who is due when, the groups that may be read; all of them where none may be any more."""
        able = [place for place in self._active if self.queues[place].taken < self.queues[place].limit]
        self._surplus = not able
        self._line = [(self.queues[place].due, place) for place in able or self._active]
        heapq.heapify(self._line)

    @property
    def tokens(self) -> int:
        return sum(queue.tokens for queue in self.queues)

    @property
    def epochs(self) -> float:
        """Tokens taken over those of the groups that take part."""
        return self.tokens / max(1, sum(self.queues[place].size for place in self._active))

    @property
    def never_taken(self) -> int:
        return sum(max(0, len(queue.pieces) - queue.taken) for queue in self.queues)

    def state(self) -> dict[str, Any]:
        return {"taken": {q.name: q.taken for q in self.queues}}

    def load_state(self, state: dict[str, Any]) -> None:
        for queue in self.queues:
            queue.go_to(int(state["taken"][queue.name]))
        self._line_up()

    def describe(self, column: str) -> Iterator[str]:
        """Lines of a table of the sources, languages and kinds: shares asked, and ``planned`` or taken (``tokens``)."""
        rows = self.account()
        total = max(1, sum(row[column] for row in rows))
        title = "to be trained on" if column == "planned" else "trained on"
        yield f"mixture: {total:,} tokens {title}, of {sum(row['available'] for row in rows):,} in the shards"
        for axis in AXES.values():
            names = sorted({row[axis] for row in rows})
            if len(names) == 1:
                continue
            for name in names:
                here = [row for row in rows if row[axis] == name]
                there, asked, got, cut, raised = (
                    sum(row[key] for row in here)
                    for key in ("available", "asked", column, "cut_by_epochs", "raised_by_floor")
                )
                notes = [f"{cut:,} cut by max_epochs"] * bool(cut) + [f"{raised:,} added by floor"] * bool(raised)
                yield (
                    f"  {axis:<8}  {printable(name):<20.20}  {there:>15,} tokens there  "
                    f"{asked / self.plan.total:>7.2%} asked  {got / total:>7.2%} {title}  "
                    f"{got / max(1, there):>6.2f} epochs"
                    f"{'  ' if notes else ''}{', '.join(notes)}"
                )

    def shares(self) -> list[dict[str, Any]]:
        """Of every group: the share of the tokens planned and taken, and how often it was read."""
        total = max(1, self.tokens)
        return [
            {
                "source": group.source, "asked": round(queue.planned / self.plan.total, 6),
                "taken": round(queue.tokens / total, 6), "epochs": round(queue.taken / max(1, len(queue.pieces)), 4),
            }
            for group, queue in zip(self.plan.groups, self.queues, strict=True)
        ]  # fmt: skip

    def account(self) -> list[dict[str, Any]]:
        """Of every group: what there is, what was asked, what the bounds made of it, what was taken."""
        plan = self.plan
        rows = zip(plan.groups, self.queues, plan.asked, plan.planned, plan.cut, plan.raised, strict=True)
        return [
            {
                **{name: group.on(axis) for axis, name in AXES.items()},
                "documents": group.documents, "available": group.tokens,
                "asked": round(float(asked)), "planned": round(float(planned)),
                "cut_by_epochs": round(float(cut)), "raised_by_floor": round(float(raised)), "tokens": queue.tokens,
                "epochs": round(queue.tokens / max(1, group.tokens), 4),
            }
            for group, queue, asked, planned, cut, raised in rows
        ]  # fmt: skip


def mixed_order(
    shards: TokenShards, context: int, batch_tokens: int, steps: int, mixture: Mixture, seed: int
) -> MixedOrder:
    """For a run of ``steps`` batches, each filled until it has ``batch_tokens``."""
    predicted = np.asarray(shards.lengths, np.int64) - 1
    pieces = -(-predicted // (context - 1))
    groups, group, repeat = group_documents(shards, predicted + pieces)
    sizes = np.full(int(pieces.sum()), context, np.int64)
    last = np.cumsum(pieces)[pieces > 0] - 1
    sizes[last] = (predicted - (pieces - 1) * (context - 1) + 1)[pieces > 0]
    # The last piece is taken whole: a batch's surplus is what is left of the piece that fills it, by renewal theory
    # half the mean of the squares over the mean.
    surplus = float((sizes**2).sum() / (2 * max(1, sizes.sum())))
    plan = allot(groups, mixture, steps * (batch_tokens + surplus), least=context)
    numbers = np.repeat(np.arange(len(sizes)), np.repeat(repeat, pieces))
    owner = np.repeat(group, pieces)[numbers]
    by_group = np.split(numbers[np.argsort(owner, kind="stable")], np.cumsum(np.bincount(owner, minlength=len(groups))))
    return MixedOrder(plan, by_group[: len(groups)], sizes, mixture.max_epochs, seed)


def order_of_sets(
    names: Sequence[str], members: Sequence[np.ndarray], sizes: np.ndarray, weights: Sequence[float], seed: int
) -> MixedOrder:
    """Of data sets, each to have its share of the tokens at every moment, however often it is read for that.

    ``members[i]``: numbers of the examples of set i; ``sizes``: (examples,) tokens; ``weights``: shares, of any sum.
    """
    groups = tuple(
        Group(name, *(UNKNOWN,) * 3, documents=len(numbers), tokens=int(sizes[numbers].sum()))
        for name, numbers in zip(names, members, strict=True)
    )
    shares = np.asarray(weights, np.float64) / np.sum(weights)
    plan = Plan(groups, 1.0, shares, shares, np.zeros_like(shares), np.ones_like(shares))
    return MixedOrder(plan, members, sizes, _AS_OFTEN_AS_NEEDED, seed)


class _Queue:
    """One group: its pieces in their order, and when the next is due (infinite where none is)."""

    def __init__(
        self, pieces: np.ndarray, sizes: np.ndarray, planned: float, max_epochs: float, seed: int, name: str
    ) -> None:
        self.name, self.planned, self.pieces, self._sizes = name, planned, pieces, sizes
        self.size = int(sizes.sum())
        self.limit = int(max_epochs * len(pieces))  # pieces, in all epochs
        self.taken = self.tokens = 0
        self.due = np.inf
        # by name: another source more or less does not change the order within this one
        self._order = EpochOrder(len(pieces), seed, xxhash.xxh3_64_intdigest(name.encode())) if len(pieces) else None
        if self._order is not None and planned > 0:
            self.go_to(0)

    def take(self) -> int:
        piece = int(self.pieces[self._next])
        self.tokens += int(self._sizes[self._next])
        self.taken += 1
        self._look()
        return piece

    def go_to(self, taken: int) -> None:
        """Stand where ``taken`` pieces have been taken."""
        self.taken = taken
        if self._order is None or self.planned <= 0:
            return
        epochs, rest = divmod(taken, len(self.pieces))
        self.tokens = epochs * self.size + int(self._sizes[self._order.of_epoch(epochs)[:rest]].sum())
        self._look()

    def _look(self) -> None:
        assert self._order is not None
        epoch, place = divmod(self.taken, len(self.pieces))
        self._next = int(self._order.of_epoch(epoch)[place])
        self.due = (self.tokens + int(self._sizes[self._next]) / 2) / self.planned
