"""The engine: requests in, completions out. What generates for RL is what evaluates and chats (promise 8).

Requests are admitted in cohorts. When half of the places are free again, another cohort joins, and one forward serves
the rows of all of them. Rows that have finished leave. Keys and values lie in a block for each cohort (cache.py), over
which attention goes cohort by cohort, or in pages of one pool (pages.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fledge.core.errors import ConfigError, DataError
from fledge.generate.cache import prefill
from fledge.generate.cohort import Cohort, Completion, Group, Request
from fledge.generate.defaults import chat_sampling, stop_tokens
from fledge.generate.loaded import LoadedModel
from fledge.generate.native import NativeStep, missing
from fledge.generate.page_reading import IN_PLACE, best_reader
from fledge.generate.pages import PAGE, PagedCache, Pages, pages_at_most, pages_at_once
from fledge.generate.step import Step
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary

if TYPE_CHECKING:
    from fledge.tokenizer.tokenizer import Tokenizer

__all__ = ["Completion", "Engine", "Request"]

SPARE = 1 / 4  # pages kept for each row that may grow; with 1, a third more steps; with this, hardly a row begins anew
COHORTS = 4  # more at once cost more small operations than their rows are worth


class Engine:
    """Generates with a model that is read anew on every call, so the trainer may pass the one that it trains.

    ``max_rows`` sequences advance together; ``max_tokens`` bounds the cache, in tokens of all of them; ``chunk`` is how
    many prompt tokens go through the decoder at once. ``compile`` decodes with loops of our own instead of torch's
    operations (native.py): on a CPU, the same but for rounding; the first use on a machine builds them in seconds. None
    does so where it can be; True raises ConfigError where it cannot.

    ``paged`` keeps keys and values in pages of ``page`` tokens, taken as rows grow: what is written is the same but for
    rounding. None does so where torch's ``varlen_attn`` reads pages through a table: on CUDA, with weights of a type
    and a kernel for it. When the pages of ``max_tokens`` are used up, the samples that began last begin anew later.
    """

    def __init__(
        self,
        model: LoadedModel | tuple[Decoder, Tokenizer | None],
        max_rows: int = 64,
        max_tokens: int = 1 << 17,
        chunk: int = 4096,
        compile: bool | None = False,
        paged: bool | None = None,
        page: int = PAGE,
    ) -> None:
        sizes = {"max_rows": max_rows, "max_tokens": max_tokens, "chunk": chunk, "page": page}
        if min(sizes.values()) < 1:
            raise ConfigError(f"{', '.join(f'{k}={v}' for k, v in sizes.items())}: each must be at least 1")
        self.generation: dict[str, Any] = {}
        if isinstance(model, LoadedModel):
            self.decoder, self.generation = model.decoder, model.generation
            self.tokenizer: Tokenizer | None = model.tokenizer
        else:
            self.decoder, self.tokenizer = model
        self.max_rows, self.max_tokens, self.chunk = max_rows, max_tokens, chunk
        if compile and paged:
            raise ConfigError("compile=True, paged=True: loops of our own read no pages; choose one of them")
        wanted = compile is not False and not paged
        why = missing(self.decoder) if wanted else ""  # before any work
        if why and compile:
            raise ConfigError(f"compile=True: {why}; or leave compile out")
        self.compile = wanted and not why
        self.page = page
        self.paged = self._reads_pages() if paged is None else paged

    def _reads_pages(self) -> bool:
        weight, config = self.decoder.output_weight, self.decoder.config
        heads = config.num_attention_heads, config.num_key_value_heads
        dtype = Step.cache_dtype(weight)
        return best_reader(str(weight.device), dtype, *heads, config.head_dim, self.page) in IN_PLACE

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

    @torch.no_grad()  # not inference mode: for it the compiled passes of training would be compiled once more
    def _steps(self, requests: Sequence[Request]) -> Iterator[tuple[int, list[Cohort]]]:
        """One decoding step at a time: (rows that ended in it, all cohorts; those without live rows leave next)."""
        limits = [self._check(i, request) for i, request in enumerate(requests)]
        if not requests:
            return
        rotary = Rotary(self.decoder.config.head_dim, self.decoder.config.rope_theta)
        # A row that has ended stays until its cohort is compacted, and its position goes on: it may pass the context.
        positions = max(len(r.prompt) for r in requests) + max(limits)
        rows = min(self.max_rows, sum(request.n for request in requests))
        native = self.compile and NativeStep.serves(self.decoder.output_weight.dtype, rows)
        step = (NativeStep if native else Step)(self.decoder, rotary, positions, rows)
        queue = deque(self._groups(requests, limits))
        dtype = step.cache_dtype(self.decoder.output_weight)
        memory = self._pool(queue, dtype) if self.paged else dtype
        cohorts: list[Cohort] = []
        crowded = False  # samples were withdrawn for want of pages, and none has ended since
        while queue or cohorts:
            free = self.max_rows - sum(cohort.live for cohort in cohorts)
            due = len(cohorts) < COHORTS and 2 * free >= self.max_rows and not crowded
            fits = self._fit_pages(memory, cohorts) if isinstance(memory, Pages) else self._fit_block(cohorts)
            if queue and (not cohorts or due) and (groups := self._admit(queue, bool(cohorts), free, fits)):
                cohort = Cohort(self.decoder, groups, memory)
                prompts = [g.request.prompt for g in groups]
                hidden = prefill(self.decoder, cohort.cache, rotary, prompts, self.chunk)
                ended = self._take([cohort], *step.logits(hidden[cohort.cache.prompt_of], self._usable))
                cohorts.append(cohort)
            else:
                if isinstance(memory, Pages) and (back := _make_room(memory, cohorts)):
                    queue.extendleft(reversed(back))
                    crowded = True
                    yield 0, cohorts
                    cohorts = [cohort for cohort in cohorts if cohort.live]
                tokens = torch.cat([c.tokens for c in cohorts]) if len(cohorts) > 1 else cohorts[0].tokens
                hidden = step(tokens, [cohort.cache for cohort in cohorts])
                ended = self._take(cohorts, *step.logits(hidden, self._usable))
            crowded = crowded and not ended
            yield ended, cohorts
            for cohort in cohorts:
                if cohort.live:
                    cohort.compact()
                else:
                    cohort.leave()
            cohorts = [cohort for cohort in cohorts if cohort.live]

    def _groups(self, requests: Sequence[Request], limits: list[int]) -> Iterator[Group]:
        """The samples of the requests, shortest prompts first, in parts of at most ``max_rows``."""
        for i in sorted(range(len(requests)), key=lambda i: len(requests[i].prompt)):
            request = requests[i]
            stops = frozenset(self.default_stops() if request.stop_ids is None else request.stop_ids)
            for first in range(0, request.n, self.max_rows):
                yield Group(i, request, first, min(self.max_rows, request.n - first), limits[i], stops)

    @staticmethod
    def _take(cohorts: list[Cohort], logits: Tensor, rest: Tensor | None) -> int:
        """Each cohort draws from its rows of the logits. -> how many rows have ended"""
        if len(cohorts) == 1:
            return cohorts[0].take(logits, rest)
        ended = start = 0
        for cohort in cohorts:
            rows = slice(start, start + len(cohort.ids))
            ended += cohort.take(logits[rows], rest[rows] if rest is not None else None)
            start = rows.stop
        return ended

    @property
    def _usable(self) -> int:
        """Rows of the vocabulary that have a token."""
        size = self.decoder.config.vocab_size
        return min(size, self.tokenizer.vocab_size) if self.tokenizer is not None else size

    def _admit(
        self, queue: deque[Group], running: bool, free: int, fits: Callable[[Sequence[Group]], bool]
    ) -> list[Group]:
        """Groups from the head of the queue that fit: at least one where nothing else is running."""
        groups: list[Group] = []
        rows = 0
        while queue:
            rows += queue[0].n
            if (rows > free or not fits([*groups, queue[0]])) and (groups or running):
                break
            groups.append(queue.popleft())
        return groups

    def _fit_block(self, cohorts: list[Cohort]) -> Callable[[Sequence[Group]], bool]:
        """Whether groups fit into ``max_tokens`` as a cohort with a block of its own."""
        held = sum(cohort.cache.size for cohort in cohorts)

        def fits(groups: Sequence[Group]) -> bool:
            width, new = max(len(g.request.prompt) for g in groups), max(g.limit for g in groups)
            return held + width * len(groups) + new * sum(g.n for g in groups) <= self.max_tokens

        return fits

    def _fit_pages(self, pages: Pages, cohorts: list[Cohort]) -> Callable[[Sequence[Group]], bool]:
        """Whether groups find pages to begin with, and a further one for some of the rows that may need it, theirs and
        those that are running."""
        size = pages.size
        growing = sum(cohort.cache.growing for cohort in cohorts if isinstance(cohort.cache, PagedCache))

        def fits(groups: Sequence[Group]) -> bool:
            sizes = [(len(g.request.prompt), g.n, g.limit) for g in groups]
            begin = sum(pages_at_once(p, n, size) for p, n, _ in sizes)
            more = sum(n for p, n, new in sizes if pages_at_most(p, n, new, size) > pages_at_once(p, n, size))
            return begin + SPARE * (more + growing) <= pages.free

        return fits

    def _pool(self, groups: Iterable[Group], dtype: torch.dtype) -> Pages:
        """``max_tokens`` in pages: no more than all could need, or those that run at once; no less than each alone."""
        sizes = [(len(g.request.prompt), g.n, g.limit) for g in groups]
        most = [pages_at_most(*size, self.page) for size in sizes]
        longest = max(pages_at_most(prompt, 1, new, self.page) for prompt, _, new in sizes)
        rows = self.max_rows * 8 // 7  # beside those that go on, an eighth of a cohort may have ended
        count = min(sum(most), rows * longest, max(self.max_tokens // self.page, max(most)))
        return Pages(self.decoder.config, count, self.page, dtype, self.decoder.output_weight.device)

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
        stops = self.default_stops() if request.stop_ids is None else request.stop_ids
        for _, (cohort,) in self._steps([request]):
            token = int(cohort.tokens[0])
            if token in stops:
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


def _make_room(pages: Pages, cohorts: list[Cohort]) -> list[Group]:
    """Each row gets a page for its next token, if it needs one; what has ended gives up its own first. -> groups that
    were withdrawn for it, in the order in which they began: the last ones. One group alone always has room."""
    back: list[Group] = []
    caches = [cohort.cache for cohort in cohorts if isinstance(cohort.cache, PagedCache)]
    if sum(cache.wanted for cache in caches) > pages.free:
        for cohort in cohorts:
            cohort.compact(least=0)
    while sum(cache.wanted for cache in caches) > pages.free:
        back = [cohort for cohort in cohorts if cohort.live][-1].withdraw() + back
    for cache in caches:
        cache.grow()
    return back
