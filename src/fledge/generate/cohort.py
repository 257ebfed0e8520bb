"""Rows that were admitted together: their cache, how each is sampled, what each has said, and when each has ended.

What is counted for each row (its tokens, its end) is kept on the host: a step waits for the device once, for the
tokens, and the rest of its bookkeeping is plain Python, which at a few hundred rows costs less than operations would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fledge.generate.cache import Cache
from fledge.generate.pages import PagedCache, Pages
from fledge.generate.sampling import Rules, Sampling, draw, uniforms
from fledge.model.decoder import Decoder


@dataclass(frozen=True)
class Request:
    """``n`` samples for one prompt. Sample i draws from stream (sampling.seed, first + i).

    ``stop_ids`` None means the tokenizer's end of turn and end of text.
    """

    prompt: Sequence[int]
    n: int = 1
    sampling: Sampling = field(default_factory=lambda: Sampling())
    stop_ids: Sequence[int] | None = None
    first: int = 0


@dataclass(frozen=True)
class Completion:
    """``tokens`` hold the stop token, if there is one; both log-probabilities are per token, in nats (see Drawn)."""

    tokens: list[int]
    logp: list[float]
    model_logp: list[float]
    reason: Literal["stop", "length"]

    @property
    def content(self) -> list[int]:
        """The tokens without the stop token."""
        return self.tokens[:-1] if self.reason == "stop" else self.tokens


@dataclass(frozen=True)
class Group:
    """``n`` samples of a request from sample ``first`` on, with up to ``limit`` tokens each."""

    index: int
    request: Request
    first: int
    n: int
    limit: int
    stops: frozenset[int]


class Cohort:
    """Rows as admitted are numbered; ``ids`` says which of them the current rows are."""

    def __init__(self, decoder: Decoder, groups: list[Group], memory: torch.dtype | Pages) -> None:
        """``memory``: the pages that its rows share with other cohorts, or of what type a cache of its own is."""
        weight, config = decoder.output_weight, decoder.config
        device = weight.device
        self.origin = [(g, s) for g in groups for s in range(g.first, g.first + g.n)]
        rows, new = len(self.origin), max(g.limit for g in groups)
        prompt_of = [p for p, g in enumerate(groups) for _ in range(g.n)]
        lengths = [len(g.request.prompt) for g in groups]
        self.cache: Cache | PagedCache
        if isinstance(memory, Pages):
            self.cache = PagedCache(memory, lengths, prompt_of, [g.limit for g, _ in self.origin])
        else:
            self.cache = Cache(config, lengths, prompt_of, new, memory, device)
        self.output = np.zeros((rows, new), np.int64)
        self.logp, self.model_logp = np.zeros((2, rows, new), np.float32)
        self.length = [0] * rows  # of those that have ended; 0 of the others, and of those that were withdrawn
        self.stopped = [False] * rows
        self.step, self.live = 0, rows
        # of the current rows
        self.ids = list(range(rows))
        self.alive = [True] * rows
        self.tokens: Tensor = torch.empty(0)  # (R,) drawn last
        self.rules = Rules.of([g.request.sampling for g, _ in self.origin], device)
        self.uniform = torch.zeros(new, rows, device=device)
        if not self.rules.all_greedy:
            streams = [uniforms(g.request.sampling.seed, g.request.first + s, g.limit) for g, s in self.origin]
            table = np.stack([np.pad(u, (0, new - len(u))) for u in streams], 1)
            self.uniform = torch.from_numpy(table).to(device)
        self.seen: Tensor | None = None
        if self.rules.any_penalty:
            self.seen = torch.zeros(rows, config.vocab_size, dtype=torch.bool, device=device)
            for row, (g, _) in enumerate(self.origin):
                self.seen[row, torch.tensor(list(g.request.prompt), device=device)] = True
        # steps since rows last left, not yet in the tables by row
        self._drawn: list[list[int]] = []
        self._scores: list[tuple[Tensor, Tensor]] = []

    def take(self, logits: Tensor, rest: Tensor | None = None) -> int:
        """Draw a token for each current row from its logits (see `draw`). -> how many rows have ended with it."""
        drawn = draw(logits, self.rules, self.uniform[self.step], self.seen, rest)
        self.tokens = drawn.tokens
        if self.seen is not None:
            self.seen.scatter_(1, drawn.tokens[:, None], True)
        self.step += 1
        tokens = drawn.tokens.tolist()  # the one wait for the device in a step
        self._drawn.append(tokens)
        self._scores.append((drawn.logp, drawn.model_logp))
        ended = 0
        for row, (token, alive) in enumerate(zip(tokens, self.alive, strict=True)):
            group = self.origin[self.ids[row]][0]
            if alive and ((stop := token in group.stops) or group.limit <= self.step):
                self.alive[row] = False
                self.length[self.ids[row]], self.stopped[self.ids[row]] = self.step, stop
                ended += 1
        self.live -= ended
        return ended

    def compact(self, least: float = 1 / 8) -> None:
        """Drop rows that have ended, once they are this part of all."""
        ended = len(self.ids) - self.live
        if ended and ended >= least * len(self.ids):
            self._drop()

    def leave(self) -> None:
        """All have ended, and their completions are told: what others can use is given back."""
        if isinstance(self.cache, PagedCache):
            self.cache.release()

    def withdraw(self) -> list[Group]:
        """Give up the last group that goes on, and its memory. -> the samples of it that had not ended, to begin anew:
        they draw the same numbers again."""
        group = self.origin[max(self.ids[row] for row, alive in enumerate(self.alive) if alive)][0]
        samples: list[int] = []
        for row, number in enumerate(self.ids):
            owner, sample = self.origin[number]
            if owner is group and self.alive[row]:
                self.alive[row] = False
                samples.append(sample)
        self.live -= len(samples)
        self._drop()
        # runs of neighbours share their prompt again
        begins = [s for s in samples if s - 1 not in samples]
        ends = [s for s in samples if s + 1 not in samples]
        return [replace(group, first=a, n=b - a + 1) for a, b in zip(begins, ends, strict=True)]

    def _drop(self) -> None:
        """The rows that have ended."""
        self._write()
        kept = [row for row, alive in enumerate(self.alive) if alive]
        order = self.cache.keep(torch.tensor(kept, dtype=torch.int64, device=self.tokens.device))
        self.ids = [self.ids[row] for row in order.tolist()]
        self.alive = [True] * len(self.ids)
        self.tokens, self.uniform, self.rules = self.tokens[order], self.uniform[:, order], self.rules.select(order)
        self.seen = self.seen[order] if self.seen is not None else None

    def _write(self) -> None:
        """What was drawn since the rows last changed, into the tables by row."""
        if not self._drawn:
            return
        steps = slice(self.step - len(self._drawn), self.step)
        self.output[self.ids, steps] = np.array(self._drawn).T
        for table, columns in zip((self.logp, self.model_logp), zip(*self._scores, strict=True), strict=True):
            table[self.ids, steps] = torch.stack(columns, 1).cpu().numpy()
        self._drawn, self._scores = [], []

    def completions(self) -> Iterator[tuple[int, int, Completion]]:
        """(request, sample, completion) of every row that was not withdrawn, when all have ended."""
        self._write()
        for row, (group, sample) in enumerate(self.origin):
            if not (length := self.length[row]):
                continue
            tokens, logp, model_logp = (t[row, :length].tolist() for t in (self.output, self.logp, self.model_logp))
            yield group.index, sample, Completion(tokens, logp, model_logp, "stop" if self.stopped[row] else "length")
