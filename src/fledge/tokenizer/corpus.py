"""Texts of a corpus -> ids, on all cores: through tiktoken where its ids are the same, else through `tokenizers`.

Threads, not processes: the encoders work outside Python's lock, and nothing has to be started, loaded again or sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from fledge.core.errors import FledgeError
from fledge.core.machine import cores

if TYPE_CHECKING:
    from fledge.tokenizer.tokenizer import Tokenizer

Encoded = tuple[np.ndarray, np.ndarray]
T = TypeVar("T")

BATCH_CHARACTERS = 1 << 18  # of texts that are encoded together: what is made of them fits into a cache
_COMPARED = 500  # characters of each batch that are encoded both ways


class Disagreement(FledgeError):
    """The two encoders gave different ids, which cannot be; what tiktoken has encoded is not to be used."""


class CorpusEncoder:
    """Encodes texts, with the end token behind each. The ids do not depend on the number of workers.

    ``engine`` is "tiktoken" or "tokenizers", ``reason`` says why it is the latter. A sample of every batch is encoded
    both ways; where the ids differ, `Disagreement` is raised.
    """

    def __init__(
        self, tokenizer: Tokenizer, workers: int | None = None, end: int | None = None, slow: str = ""
    ) -> None:
        """``workers``: threads, by default one a core. ``slow``: a reason not to use tiktoken."""
        self._tokenizer = tokenizer
        self._end = tokenizer.endoftext if end is None else end
        self._fast = None if slow else tokenizer.fast
        self.workers = workers or cores()
        self.reason = slow or tokenizer.fast_reason
        self.engine = "tokenizers" if self._fast is None else "tiktoken"

    def encode(self, texts: Sequence[str]) -> Encoded:
        """(ids of all texts one behind the other, int32; how many each has, with its end token, int64).

        Raises `DataError` for text with a lone surrogate.
        """
        try:
            found = None if self._fast is None else self._fast.encode_many(texts, self._end)
        except UnicodeEncodeError:
            return self._by_tokenizers(texts)  # which says what is wrong
        if found is not None:
            return found
        if self._fast is None or len(texts) <= 1:
            return self._by_tokenizers(texts)
        middle = len(texts) // 2  # one of the texts holds what tiktoken cannot be given
        (ids, lengths), (more, more_lengths) = self.encode(texts[:middle]), self.encode(texts[middle:])
        return np.concatenate([ids, more]), np.concatenate([lengths, more_lengths])

    def encode_all(self, batches: Iterable[tuple[Sequence[str], T]]) -> Iterator[tuple[Encoded, T]]:
        """`encode` of (texts, anything), in order, with the anything; a few batches are in memory at a time."""
        if self.workers == 1:
            yield from ((self._checked(texts), tag) for texts, tag in batches)
            return
        pool = ThreadPoolExecutor(self.workers)
        waiting: deque[tuple[Future[Encoded], T]] = deque()
        try:
            for texts, tag in batches:
                waiting.append((pool.submit(self._checked, texts), tag))
                if len(waiting) > 2 * self.workers:
                    future, tag = waiting.popleft()
                    yield future.result(), tag
            while waiting:
                future, tag = waiting.popleft()
                yield future.result(), tag
        finally:
            pool.shutdown(cancel_futures=True)

    def _checked(self, texts: Sequence[str]) -> Encoded:
        result = self.encode(texts)
        if self._fast is not None and texts:
            sample = texts[len(texts) // 2][:_COMPARED]
            ids = self._tokenizer.reference_ids([sample])[0]
            if self.encode([sample])[0].tolist() != [*ids, self._end]:
                raise Disagreement(f"tiktoken and tokenizers give different ids for text like {sample[:60]!r}")
        return result

    def _by_tokenizers(self, texts: Sequence[str]) -> Encoded:
        found = self._tokenizer.reference_ids(texts)
        lengths = np.array([len(ids) + 1 for ids in found], np.int64)
        result = np.full(lengths.sum(), self._end, np.int32)
        for ids, stop in zip(found, np.cumsum(lengths).tolist(), strict=True):
            result[stop - 1 - len(ids) : stop - 1] = ids
        return result, lengths


def batches_of(texts: Sequence[str]) -> Iterator[tuple[list[str], None]]:
    """Texts in batches of about `BATCH_CHARACTERS`."""
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= BATCH_CHARACTERS:
            yield batch, None
            batch, held = [], 0
    if batch:
        yield batch, None
