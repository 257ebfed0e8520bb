"""The engine: requests in, completions out. What generates for RL is what evaluates and chats (promise 8).

Requests are admitted in cohorts (cache.py). When half of the places are free again, another cohort joins, and one
forward serves the rows of all of them; only attention goes cohort by cohort. Rows that have finished leave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.core.errors import ConfigError, DataError
from fledge.generate.cache import Cache, StepAttention, cache_dtype, prefill
from fledge.generate.defaults import chat_sampling, stop_tokens
from fledge.generate.loaded import LoadedModel
from fledge.generate.sampling import Rules, Sampling, draw, uniforms
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary

if TYPE_CHECKING:
    from fledge.tokenizer.tokenizer import Tokenizer

COHORTS = 4  # more at once cost more small operations than their rows are worth


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


class Engine:
    """Generates with a model that is read anew on every call, so the trainer may pass the one that it trains.

    ``max_rows`` sequences advance together; ``max_tokens`` bounds the cache, in tokens of all of them; ``chunk`` is how
    many prompt tokens go through the decoder at once.
    """

    def __init__(
        self,
        model: LoadedModel | tuple[Decoder, Tokenizer | None],
        max_rows: int = 64,
        max_tokens: int = 1 << 17,
        chunk: int = 4096,
    ) -> None:
        if min(max_rows, max_tokens, chunk) < 1:
            raise ConfigError(f"max_rows={max_rows}, max_tokens={max_tokens}, chunk={chunk}: each must be at least 1")
        self.generation: dict[str, Any] = {}
        if isinstance(model, LoadedModel):
            self.decoder, self.generation = model.decoder, model.generation
            self.tokenizer: Tokenizer | None = model.tokenizer
        else:
            self.decoder, self.tokenizer = model
        self.max_rows, self.max_tokens, self.chunk = max_rows, max_tokens, chunk

    # ------------------------------------------------------------------------------------------ many

    def generate(
        self, requests: Sequence[Request], on_progress: Callable[[int], object] | None = None
    ) -> list[list[Completion]]:
        """-> for each request its ``n`` completions, in order. generation_config.json plays no part here.

        ``on_progress(k)`` is called when k more completions have finished. Raises DataError, before any work, for an
        empty prompt, ids outside the vocabulary, or a prompt that fills the context.
        """
        results: list[list[Completion | None]] = [[None] * request.n for request in requests]
        for finished, cohorts in self._steps(requests):
            if finished and on_progress is not None:
                on_progress(finished)
            for cohort in cohorts:
                if not cohort.live:
                    for request, sample, completion in cohort.completions():
                        results[request][sample] = completion
        return results  # type: ignore[return-value]  # every place is filled when the steps are over

    @torch.no_grad()
    def _steps(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[Cohort]]]:
        """One decoding step at a time: (rows that finished in it, all cohorts; those without live rows leave next)."""
        config = self.decoder.config
        limits = [self._check(i, request) for i, request in enumerate(requests)]
        if not requests:
            return
        rotary = Rotary(config.head_dim, config.rope_theta)
        weight = self.decoder.output_weight
        # A finished row stays until its cohort is compacted, and its position goes on: it may pass the context.
        longest = max(len(r.prompt) for r in requests) + max(limits)
        tables = rotary.tables(torch.arange(longest, device=weight.device), weight.dtype)
        queue = deque(
            _Group(i, requests[i], first, min(self.max_rows, requests[i].n - first), limits[i])
            for i in sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))
            for first in range(0, requests[i].n, self.max_rows)
        )
        cohorts: list[Cohort] = []
        while queue or cohorts:
            free = self.max_rows - sum(cohort.live for cohort in cohorts)
            due = len(cohorts) < COHORTS and 2 * free >= self.max_rows
            if queue and (not cohorts or due) and (groups := self._admit(queue, cohorts, free)):
                cohort = Cohort(self, groups)
                hidden = prefill(self.decoder, cohort.cache, rotary, [g.request.prompt for g in groups], self.chunk)
                logits = F.linear(hidden, weight).float()
                finished = cohort.take(logits[cohort.cache.prompt_of])
                cohorts.append(cohort)
            else:
                tokens = torch.cat([cohort.tokens for cohort in cohorts])
                hidden = self.decoder(tokens, StepAttention([cohort.cache for cohort in cohorts], tables))
                logits = F.linear(hidden, weight).float()
                finished = 0
                for cohort, part in zip(cohorts, logits.split([len(c.tokens) for c in cohorts]), strict=True):
                    cohort.cache.used += 1
                    finished += cohort.take(part)
            yield finished, cohorts
            cohorts = [cohort for cohort in cohorts if cohort.live]
            for cohort in cohorts:
                cohort.compact()

    def _admit(self, queue: deque[_Group], cohorts: list[Cohort], free: int) -> list[_Group]:
        """Groups from the head of the queue that fit: at least one where nothing else is running."""
        groups: list[_Group] = []
        held = sum(cohort.cache.size for cohort in cohorts)
        rows = width = new = 0
        while queue:
            group = queue[0]
            rows += group.n
            width, new = max(width, len(group.request.prompt)), max(new, group.limit)
            size = held + width * (len(groups) + 1) + new * rows
            if (rows > free or size > self.max_tokens) and (groups or cohorts):
                break
            groups.append(queue.popleft())
        return groups

    def _check(self, index: int, request: Request) -> int:
        """-> how many new tokens each sample may have."""
        config = self.decoder.config
        length = len(request.prompt)
        where = f"request {index}"
        if not length:
            raise DataError(f"{where}: the prompt is empty; a model needs at least one token to continue")
        if request.n < 1:
            raise DataError(f"{where}: n={request.n}, must be at least 1")
        if min(request.prompt) < 0 or max(request.prompt) >= config.vocab_size:
            raise DataError(f"{where}: holds a token id outside 0..{config.vocab_size - 1}")
        room = config.max_position_embeddings - length
        if room < 1:
            raise DataError(
                f"{where}: the prompt has {length} tokens and leaves no room in the context of "
                f"{config.max_position_embeddings} (max_position_embeddings); shorten it"
            )
        return min(request.sampling.max_new_tokens, room)

    # ------------------------------------------------------------------------------------------- chat

    def chat(self, messages: Sequence[Any], **sampling: Any) -> str:
        """The reply to a conversation that ends with a user's (or tool's) turn.

        ``temperature`` (0 is greedy), ``top_p``, ``top_k``, ``max_new_tokens``, ``repetition_penalty``, ``seed``;
        what is not given comes from generation_config.json, as in transformers.
        """
        return "".join(self.stream(messages, **sampling))

    def stream(self, messages: Sequence[Any], **sampling: Any) -> Iterator[str]:
        """The reply in pieces, as it is made; never half a character."""
        request = self.chat_request(messages, **sampling)
        return self._pieces(request)

    def chat_request(self, messages: Sequence[Any], **sampling: Any) -> Request:
        """The request that ``chat`` and ``stream`` make: prompt ids, defaults of the folder, stop ids."""
        from fledge.tokenizer.chat import encode_prompt

        tokenizer = self._tokenizer()
        return Request(
            encode_prompt(tokenizer, messages),
            sampling=chat_sampling(self.generation, sampling),
            stop_ids=stop_tokens(self.generation, tokenizer),
        )

    def _pieces(self, request: Request) -> Iterator[str]:
        from fledge.tokenizer.tokenizer import StreamDecoder

        decoder = StreamDecoder(self._tokenizer())
        for step, (_, cohorts) in enumerate(self._steps([request])):
            cohort = cohorts[0]
            token = int(cohort.output[0, step])
            if token in cohort.stop_ids(0):
                break
            if piece := decoder.push(token):
                yield piece
        if rest := decoder.flush():
            yield rest

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ConfigError("this engine was made without a tokenizer, so it generates from ids only")
        return self.tokenizer

    def default_stops(self) -> tuple[int, ...]:
        """The stop ids of requests that name none."""
        return () if self.tokenizer is None else stop_tokens({}, self.tokenizer)


@dataclass(frozen=True)
class _Group:
    """``n`` samples of a request from sample ``first`` on, with up to ``limit`` tokens each."""

    index: int
    request: Request
    first: int
    n: int
    limit: int


class Cohort:
    """Rows that were admitted together. Buffers are by row as admitted; ``ids`` says where the current rows are."""

    def __init__(self, engine: Engine, groups: list[_Group]) -> None:
        weight = engine.decoder.output_weight
        device = weight.device
        self.groups = groups
        self.origin = [(g, s) for g in groups for s in range(g.first, g.first + g.n)]
        rows, new = len(self.origin), max(g.limit for g in groups)
        prompt_of = [p for p, g in enumerate(groups) for _ in range(g.n)]
        lengths = [len(g.request.prompt) for g in groups]
        self.cache = Cache(engine.decoder.config, lengths, prompt_of, new, cache_dtype(weight), device)
        self.output = torch.zeros(rows, new, dtype=torch.int64, device=device)
        self.logp = torch.zeros(rows, new, device=device)
        self.model_logp = torch.zeros(rows, new, device=device)
        self.length = torch.zeros(rows, dtype=torch.int64, device=device)
        self.stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        self.step, self.live = 0, rows
        # of the current rows
        self.ids = torch.arange(rows, device=device)
        self.tokens = self.ids
        self.alive = torch.ones(rows, dtype=torch.bool, device=device)
        self.limit = torch.tensor([g.limit for g, _ in self.origin], device=device)
        self.rules = Rules.of([g.request.sampling for g, _ in self.origin], device)
        self._stops = [tuple(_or(g.request.stop_ids, engine.default_stops())) for g in groups]
        most = max(1, *(len(s) for s in self._stops)) if self._stops else 1
        table = [[*self._stops[p], *[-1] * (most - len(self._stops[p]))] for p in prompt_of]
        self.stops = torch.tensor(table, dtype=torch.int64, device=device)
        self.uniform = torch.zeros(rows, new, device=device)
        if not self.rules.all_greedy:
            streams = [uniforms(g.request.sampling.seed, g.request.first + s, g.limit) for g, s in self.origin]
            self.uniform = torch.from_numpy(np.stack([np.pad(u, (0, new - len(u))) for u in streams])).to(device)
        size = engine.decoder.config.vocab_size
        self.usable = engine.tokenizer.vocab_size if engine.tokenizer is not None else size
        self.seen: Tensor | None = None
        if self.rules.any_penalty:
            self.seen = torch.zeros(rows, size, dtype=torch.bool, device=device)
            for row, (g, _) in enumerate(self.origin):
                self.seen[row, torch.tensor(list(g.request.prompt), device=device)] = True

    def take(self, logits: Tensor) -> int:
        """Draw a token for each current row from its logits (R, V). -> how many rows have finished with it."""
        drawn = draw(logits, self.rules, self.uniform[self.ids, self.step], self.seen, self.usable)
        self.tokens = drawn.tokens
        self.output[self.ids, self.step] = drawn.tokens
        self.logp[self.ids, self.step] = drawn.logp
        self.model_logp[self.ids, self.step] = drawn.model_logp
        if self.seen is not None:
            self.seen[torch.arange(len(self.ids), device=self.ids.device), drawn.tokens] = True
        self.step += 1
        stop = (drawn.tokens[:, None] == self.stops).any(1)
        done = self.alive & (stop | (self.limit <= self.step))
        finished = int(done.sum())  # the one wait for the device in a step
        if finished:
            rows = self.ids[done]
            self.length[rows] = self.step
            self.stopped[rows] = stop[done]
            self.alive &= ~done
            self.live -= finished
        return finished

    def compact(self) -> None:
        """Drop finished rows, once they are an eighth of all."""
        rows = len(self.ids)
        if 8 * (rows - self.live) < rows:
            return
        order = self.cache.keep(self.alive.nonzero()[:, 0])
        self.ids, self.tokens, self.alive = self.ids[order], self.tokens[order], self.alive[order]
        self.limit, self.stops, self.rules = self.limit[order], self.stops[order], self.rules.select(order)
        self.seen = self.seen[order] if self.seen is not None else None

    def stop_ids(self, group: int) -> tuple[int, ...]:
        return self._stops[group]

    def completions(self) -> Iterator[tuple[int, int, Completion]]:
        """(request, sample, completion) of every row, when all have finished."""
        lengths, stopped = self.length.tolist(), self.stopped.tolist()
        columns = self.output.tolist(), self.logp.tolist(), self.model_logp.tolist()
        for row, (group, sample) in enumerate(self.origin):
            tokens, logp, model_logp = (column[row][: lengths[row]] for column in columns)
            reason: Literal["stop", "length"] = "stop" if stopped[row] else "length"
            yield group.index, sample, Completion(tokens, logp, model_logp, reason)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
