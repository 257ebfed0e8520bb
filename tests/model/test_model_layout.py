"""The packed layout against its definitions, written out by hand and by search."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import LAYOUTS

from fledge.model.layout import Layout


def test_a_pair_and_a_document_by_hand() -> None:
    layout = Layout.of([3, 2, 2, 2], [-1, 0, 0, -1])
    assert layout.start.tolist() == [0, 3, 5, 7]
    assert layout.prefix.tolist() == [0, 3, 3, 0]
    assert layout.segment_of.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert layout.positions.tolist() == [0, 1, 2, 3, 4, 3, 4, 0, 1]
    assert layout.source.tolist() == [-1, 0, 1, 2, 3, 2, 5, -1, 7]
    assert layout.visible().astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 1],
    ]


def test_ancestors_from_the_root_down() -> None:
    layout = Layout.of([2, 3, 4, 5], [-1, 0, 1, 2])
    assert [layout.ancestors(s) for s in range(4)] == [[], [0], [0, 1], [0, 1, 2]]
    assert layout.prefix.tolist() == [0, 2, 5, 9]


@pytest.mark.parametrize("name", LAYOUTS)
def test_positions_count_what_is_seen_and_source_is_the_newest_of_it(name: str) -> None:
    layout = LAYOUTS[name]
    see = layout.visible()
    assert (see.sum(1) == layout.positions + 1).all()
    for token in range(layout.tokens):
        others = np.flatnonzero(see[token] & (np.arange(layout.tokens) != token))
        newest = others[np.argmax(layout.positions[others])] if len(others) else -1
        assert layout.source[token] == newest


@pytest.mark.parametrize(
    ("lengths", "parents", "message"),
    [
        ([2, 0, 3], None, "segment 1 is empty"),
        ([2, 2], [-1], "2 lengths but 1 parents"),
        ([2, 2], [1, -1], "segment 0: a parent must come first"),
        ([2, 2], [-1, 1], "segment 1: a parent must come first"),
    ],
)
def test_what_is_no_layout_is_refused(lengths: list[int], parents: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layout.of(lengths, parents)
