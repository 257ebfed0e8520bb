"""The split of the wordings: of every table, and not only of all together, about a quarter is for the tests alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fledge.microworld.disjoint import held_out_wordings
from fledge.microworld.facts import PERSON, PLACE
from fledge.microworld.skills import coding, following, identity, reading, recall, safety, sums, translation


def tables() -> Iterator[tuple[str, tuple[str, ...], int]]:
    """(name, wordings, how many of them the skill holds out)"""
    for language in ("en", "zh"):
        for module in (sums, translation, coding, safety):
            yield f"{module.__name__.rpartition('.')[2]}-{language}", tuple(module.ASK[language]), module.HELD_OUT
        yield f"identity-{language}", tuple(identity.CORES[language]), identity.HELD_OUT
        for kind, wordings in following.ASK[language].items():
            yield f"following-{kind}-{language}", tuple(wordings), following.HELD_OUT
        for attribute in PERSON + PLACE:
            yield f"recall-{attribute.name}-{language}", attribute.questions(language), recall.HELD_OUT
        for detail in reading.DETAILS:
            asked = detail.ask_en if language == "en" else detail.ask_zh
            yield f"reading-{detail.ask_en[0]}-{language}", asked, reading.HELD_OUT


TABLES = list(tables())


@pytest.mark.parametrize(("wordings", "count"), [t[1:] for t in TABLES], ids=[t[0] for t in TABLES])
def test_of_every_table_about_a_quarter_is_held_out(wordings: tuple[str, ...], count: int) -> None:
    checked = set(held_out_wordings())
    held = [wording for wording in wordings if wording in checked]
    assert held == list(wordings[-count:])  # what the skill holds out is what the proof looks for
    assert 0.15 <= len(held) / len(wordings) <= 0.35


def test_no_table_is_forgotten() -> None:
    held = {wording for _, wordings, count in TABLES for wording in wordings[-count:]}
    assert held == set(held_out_wordings())
