"""The packed layout: one row of tokens without padding, cut into segments that may have parents.

A segment sees itself (causally) and the whole of its ancestors, nothing else. A plain document is one segment; a
preference pair is a prompt with two children; a group of samples is a prompt with G children, whose prompt is
computed once. Everything here is made on the host, with numpy, before the tokens reach the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """S segments over N tokens. ``parent[s]`` is -1 for a root, else the index of an earlier segment."""

    length: Ints  # (S,)
    parent: Ints  # (S,)

    @classmethod
    def of(cls, lengths: Sequence[int], parents: Sequence[int] | None = None) -> Layout:
        length = np.asarray(lengths, np.int64)
        parent = np.full(len(length), -1, np.int64) if parents is None else np.asarray(parents, np.int64)
        if len(length) != len(parent):
            raise ValueError(f"{len(length)} lengths but {len(parent)} parents")
        if (length <= 0).any():
            raise ValueError(f"segment {int(np.argmax(length <= 0))} is empty")
        if (parent >= np.arange(len(parent))).any():
            raise ValueError(f"segment {int(np.argmax(parent >= np.arange(len(parent))))}: a parent must come first")
        return cls(length, parent)

    @property
    def segments(self) -> int:
        return len(self.length)

    @cached_property
    def start(self) -> Ints:
        """(S,) index of each segment's first token."""
        return np.concatenate([[0], np.cumsum(self.length)[:-1]]).astype(np.int64) if len(self.length) else self.length

    @property
    def tokens(self) -> int:
        return int(self.length.sum())

    @cached_property
    def segment_of(self) -> Ints:
        """(N,) segment of each token."""
        return np.repeat(np.arange(self.segments), self.length)

    @cached_property
    def prefix(self) -> Ints:
        """(S,) number of tokens in all ancestors: the position at which a segment begins."""
        before = np.zeros(self.segments, np.int64)
        for s in range(self.segments):
            if self.parent[s] >= 0:
                before[s] = before[self.parent[s]] + self.length[self.parent[s]]
        return before

    @cached_property
    def positions(self) -> Ints:
        """(N,) positions; a child's continue its parent's."""
        return np.arange(self.tokens) - self.start[self.segment_of] + self.prefix[self.segment_of]

    @cached_property
    def source(self) -> Ints:
        """(N,) where the hidden state that predicts token i is read: the token before it, or, for a child's first
        token, its parent's last. -1 for a root's first token, which nothing predicts."""
        source = np.arange(self.tokens) - 1
        roots = self.parent < 0
        source[self.start[roots]] = -1
        children = ~roots
        parents = self.parent[children]
        source[self.start[children]] = self.start[parents] + self.length[parents] - 1
        return source

    def ancestors(self, segment: int) -> list[int]:
        """From the root down to the parent."""
        chain = []
        at = int(self.parent[segment])
        while at >= 0:
            chain.append(at)
            at = int(self.parent[at])
        return chain[::-1]

    def visible(self) -> npt.NDArray[np.bool_]:
        """(N, N) whether token i sees token j: the plain definition, for tests and small cases."""
        see = np.zeros((self.tokens, self.tokens), bool)
        for s in range(self.segments):
            a, n = int(self.start[s]), int(self.length[s])
            see[a : a + n, a : a + n] = np.tril(np.ones((n, n), bool))
            for p in self.ancestors(s):
                see[a : a + n, self.start[p] : self.start[p] + self.length[p]] = True
        return see
