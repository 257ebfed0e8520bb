"""From examples to packed micro-batches.

An `Example` is what the sampler counts in and what the packer never cuts: a document, a conversation, a pair with its
prompt, a group with its prompt. Its segments carry, for each token, how much it counts in the loss (indexed by the
token *predicted*), and any other columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fledge.core.shapes import filled
from fledge.model.attention import AttentionPlan, make_plan
from fledge.model.layout import Layout

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Segment:
    """L tokens that see themselves and their ancestors. ``origin`` leads back to the document and the offset in it."""

    tokens: Tokens  # (L,)
    weight: Floats  # (L,) 0: not trained on
    parent: int = -1  # index within the example
    columns: Mapping[str, Floats] = field(default_factory=dict)  # each (L,)
    values: Mapping[str, float] = field(default_factory=dict)  # one a segment
    origin: tuple[str, int] = ("", 0)

    def __post_init__(self) -> None:
        for name, column in {"weight": self.weight, **self.columns}.items():
            if len(column) != len(self.tokens):
                raise ValueError(f"column {name!r} has {len(column)} entries for {len(self.tokens)} tokens")

    def with_columns(self, **columns: Floats) -> Segment:
        return replace(self, columns={**self.columns, **columns})

    def with_values(self, **values: float) -> Segment:
        return replace(self, values={**self.values, **values})


@dataclass(frozen=True)
class Example:
    """``module``: the only one of a loop's modules that trains on it; none: every one does. ``number``: which one of
    all that the run trains on; the loop gives it, and dropout knows tokens by it."""

    segments: tuple[Segment, ...]
    module: str = ""
    number: int = 0

    @property
    def tokens(self) -> int:
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    def trained(self) -> int:
        return sum(int(np.count_nonzero(segment.weight)) for segment in self.segments)


def single(tokens: npt.ArrayLike, weight: npt.ArrayLike, origin: tuple[str, int] = ("", 0), **values: float) -> Example:
    """An example of one segment."""
    segment = Segment(np.asarray(tokens, np.int32), np.asarray(weight, np.float32), values=values, origin=origin)
    return Example((segment,))


@dataclass(frozen=True)
class PackedBatch:
    """A micro-batch of N tokens in S segments, M of the tokens trained on.

    ``columns`` and ``weight`` are gathered for the trained tokens only; ``values`` are per segment. A column that a
    segment does not have is 0 there.
    """

    layout: Layout
    plan: AttentionPlan
    tokens: Tensor  # (N',) int64; rows beyond the layout's N are filling (core/shapes.py), which nothing sees
    trained: Tensor  # (M,) indices of trained tokens
    source: Tensor  # (M,) where the hidden state that predicts them is read
    targets: Tensor  # (M,) their ids
    weight: Tensor  # (M,)
    segment: Tensor  # (M,) segment of each
    last: Tensor  # (S,) index of every segment's last token
    columns: Mapping[str, Tensor]  # each (M,)
    values: Mapping[str, Tensor]  # each (S,)
    identity: Tensor  # (N',) int64: number of the example and offset in it, spread over all bits; who a token is

    def value(self, name: str) -> Tensor:
        """(S,) a value of every segment; 0 for all where no segment has it."""
        known = self.values.get(name)
        return known if known is not None else torch.zeros(self.layout.segments, device=self.tokens.device)

    def column(self, name: str) -> Tensor:
        """(M,) a column of every trained token; 0 for all where no segment has it."""
        known = self.columns.get(name)
        return known if known is not None else torch.zeros(len(self.trained), device=self.tokens.device)

    def segment_sum(self, per_token: Tensor) -> Tensor:
        """(M,) -> (S,): the only way in which values per segment are made."""
        out = torch.zeros(self.layout.segments, dtype=per_token.dtype, device=per_token.device)
        return out.index_add(0, self.segment, per_token)


def pack(examples: Sequence[Example], device: torch.device | str = "cpu") -> PackedBatch:
    """One micro-batch of all these examples, in their order."""
    segments: list[Segment] = []
    parents: list[int] = []
    for example in examples:
        base = len(segments)
        segments += example.segments
        parents += [base + s.parent if s.parent >= 0 else -1 for s in example.segments]
    layout = Layout.of([len(s.tokens) for s in segments], parents)
    weight = np.concatenate([s.weight for s in segments])
    source = layout.source
    trained = np.flatnonzero(weight)
    if (source[trained] < 0).any():
        at = int(trained[source[trained] < 0][0])
        raise ValueError(f"token {at} begins a root segment: nothing predicts it, so its weight must be 0")
    tokens = filled(np.concatenate([s.tokens for s in segments]).astype(np.int64), device)
    token_names = sorted({name for s in segments for name in s.columns})
    value_names = sorted({name for s in segments for name in s.values})

    def move(array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    def column(name: str) -> Tensor:
        parts = [s.columns[name] if name in s.columns else np.zeros(len(s.tokens), np.float32) for s in segments]
        return move(np.concatenate(parts)[trained].astype(np.float32))

    return PackedBatch(
        layout=layout,
        plan=make_plan(layout, device=device, rows=len(tokens)),
        tokens=move(tokens),
        trained=move(trained),
        source=move(source[trained]),
        targets=move(tokens[trained]),
        weight=move(weight[trained]),
        segment=move(layout.segment_of[trained]),
        last=move(layout.start + layout.length - 1),
        columns={name: column(name) for name in token_names},
        values={n: move(np.array([s.values.get(n, 0.0) for s in segments], np.float32)) for n in value_names},
        identity=move(_identities(examples, len(tokens))),
    )


def _identities(examples: Sequence[Example], rows: int) -> npt.NDArray[np.int64]:
    """(rows,) golden ratio x number + offset, modulo 2^64: tokens of different examples are far apart."""
    result = np.zeros(rows, np.uint64)
    at = 0
    for example in examples:
        first = np.uint64(example.number * 0x9E3779B97F4A7C15 % (1 << 64))
        result[at : at + example.tokens] = first + np.arange(example.tokens, dtype=np.uint64)
        at += example.tokens
    return result.view(np.int64)


def cut(examples: Sequence[Example], budget: int) -> list[list[Example]]:
    """Split a global batch into micro-batches of at most ``budget`` tokens, in order; an example is never cut, so one
    that is larger than the budget stands alone. Sizes are evened out."""
    total = sum(example.tokens for example in examples)
    share = total / max(1, -(-total // budget))
    parts: list[list[Example]] = []
    filled = 0
    for example in examples:
        if parts and (filled + example.tokens <= budget) and filled < share:
            parts[-1].append(example)
            filled += example.tokens
        else:
            parts.append([example])
            filled = example.tokens
    return parts


def shares(examples: Sequence[Example], rank: int, world: int, budget: int) -> list[list[Example]]:
    """The micro-batches of a rank, which has every ``world``-th example. All ranks get as many, since their collective
    calls must meet: behind a rank's own stand empty ones."""
    own = [cut(examples[r::world], budget) for r in range(world)]
    count = max(map(len, own))
    return own[rank] + [[empty_example()]] * (count - len(own[rank]))


def empty_example() -> Example:
    """A stand-in for a rank that has nothing left to do while others do: two tokens, none of them trained on."""
    return Example((Segment(np.zeros(2, np.int32), np.zeros(2, np.float32)),))


def trained_tokens(examples: Iterable[Example]) -> int:
    return sum(example.trained for example in examples)
