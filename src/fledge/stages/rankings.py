"""Answers in order of preference as examples: a prompt with its answers as children, best first (SPEC J.1).

An answer's segment has the values ``rank`` (from 1; ties share one), ``first`` on the best, ``worth`` (differences of
which are margins) and ``share`` (1 over the pairs of its ranking): what the objective needs to make the pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from fledge.core.errors import DataError
from fledge.core.readers import OnError
from fledge.core.records import Ranking
from fledge.stages.dialogues import Account, prompt_segment, read_usable
from fledge.tokenizer.chat import encode_prompt, encode_reply
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, PackedBatch, Segment

CUT_ANSWERS = "answers of rankings left out: longer than the context"


@dataclass(frozen=True)
class Ranked:
    example: Example
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """Which keys of a row's meta are read: ``margin`` (a number: how much better the chosen of two answers is) and
    ``tags`` (a text or several; where ``tagged``, rows without one are left out)."""

    margin: str | None = None
    tags: str | None = None
    tagged: bool = True


def read_rankings(
    paths: Sequence[Path], tokenizer: Tokenizer, max_tokens: int, on_error: OnError, account: Account,
    columns: Columns = Columns(), language: bool = False,
) -> list[Ranked]:  # fmt: skip
    """Rankings, and pairs as rankings of two. ``language``: the best answer's tokens are trained on as well.

    An answer that does not fit the context is left out of a ranking; where fewer than two are left, so is the row.
    """

    def use(place: str, record: Ranking) -> Ranked | None:
        notes: Counter[str] = Counter()
        prompt = encode_prompt(tokenizer, record.asked, notes)
        worth = worths(record, columns.margin)
        answers = [encode_reply(tokenizer, text) for text in record.answers]
        fitting = [k for k, answer in enumerate(answers) if len(prompt) + len(answer) <= max_tokens]
        if len(fitting) < 2:
            account.skip(place, "longer than the context")
            return None
        answers, worth, ranks = [answers[k] for k in fitting], [worth[k] for k in fitting], ranks_of(record, fitting)
        if len(set(map(tuple, answers))) < len(answers):
            account.skip(place, "both answers have the same ids")
            return None
        if ranks[-1] == 1:
            account.skip(place, "the answers that fit the context have one score")
            return None
        tags = tags_of(record, columns.tags)
        if columns.tags is not None and columns.tagged and not tags:
            account.skip(place, f"no tag under {columns.tags!r}")
            return None
        account.notes.update(notes)
        if cut := len(record.answers) - len(answers):
            account.notes[CUT_ANSWERS] += cut
        return Ranked(ranking_example(prompt, answers, ranks, worth, place, language), tags)

    return read_usable(paths, Ranking, tokenizer, on_error, account, use)


def ranking_example(
    prompt: Sequence[int], answers: Sequence[Sequence[int]], ranks: Sequence[int], worth: Sequence[float], origin: str,
    language: bool = False,
) -> Example:  # fmt: skip
    pairs = sum(a < b for k, a in enumerate(ranks) for b in ranks[k + 1 :])
    segments = [prompt_segment(prompt, (origin, 0))]
    for k, (answer, rank, value) in enumerate(zip(answers, ranks, worth, strict=True)):
        tokens = np.asarray(answer, np.int32)
        weight = np.full(len(tokens), float(language and k == 0), np.float32)
        values = {"rank": float(rank), "first": float(k == 0), "worth": value, "share": 1.0 / pairs}
        segments.append(Segment(tokens, weight, 0, values=values, origin=(origin, len(prompt))))
    return Example(tuple(segments))


def worths(record: Ranking, margin: str | None) -> list[float]:
    """Numbers whose differences are the margins: a ranking's scores, or a pair's margin above 0; all 0 where the row
    gives none and none is asked for."""
    if record.scores is not None:
        return list(record.scores)
    if margin is None:
        return [0.0] * len(record.answers)
    value = record.meta.get(margin)
    if len(record.answers) > 2:
        raise DataError("margin: a ranking of more than two answers needs 'scores', whose differences are its margins")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise DataError(f"margin: meta has no number from 0 on under {margin!r}, but {value!r}")
    return [float(value), 0.0]


def ranks_of(record: Ranking, kept: Sequence[int]) -> list[int]:
    """From 1; answers of one score share a rank."""
    if record.scores is None:
        return list(range(1, len(kept) + 1))
    scores = [record.scores[k] for k in kept]
    order = sorted(set(scores), reverse=True)
    return [order.index(score) + 1 for score in scores]


def tags_of(record: Ranking, key: str | None) -> tuple[str, ...]:
    value: Any = record.meta.get(key) if key is not None else None
    if value is None or value == "":
        return ()
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)


def split_by_prompt(rows: Sequence[Ranked], share: float, seed: int) -> tuple[list[Ranked], list[Ranked]]:
    """About ``share`` of the rows as the second list. All rows of a prompt are on one side, whatever other rows are
    there."""
    sides: tuple[list[Ranked], list[Ranked]] = ([], [])
    for row in rows:
        draw = xxhash.xxh3_64_intdigest(row.example.segments[0].tokens.tobytes(), seed & 0xFFFFFFFFFFFFFFFF)
        sides[draw < share * 2.0**64].append(row)
    return sides


def pairs_of(rank: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """``rank`` and ``first`` (S,) of segments -> the segments (P,) of the better and of the worse answers of all
    pairs. A ranking's answers stand one after another."""
    answers = torch.nonzero(rank)[:, 0]
    place, group = rank[answers], first[answers].cumsum(0)
    better, worse = [answers[:0]], [answers[:0]]
    for apart in range(1, len(answers)):
        together = group[apart:] == group[:-apart]
        if not bool(together.any()):
            break
        keep = together & (place[apart:] > place[:-apart])
        better.append(answers[:-apart][keep])
        worse.append(answers[apart:][keep])
    return torch.cat(better), torch.cat(worse)


def batch_pairs(batch: PackedBatch) -> tuple[Tensor, Tensor]:
    return pairs_of(batch.value("rank"), batch.value("first"))
