"""Shares to tokens: closed forms, bounds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.corpus.writing.groups import Group
from fledge.corpus.writing.mixture import Mixture, Plan, allot

WEB = Group("web", "en", "html", "CC0-1.0", 600, 6_000_000)
WEB_ZH = Group("web", "zh", "html", "CC0-1.0", 200, 2_000_000)
WIKI = Group("wiki", "en", "text", "CC0-1.0", 150, 1_500_000)
WIKI_ZH = Group("wiki", "zh", "text", "CC0-1.0", 50, 500_000)
CODE = Group("code", "en", "code", "CC0-1.0", 10, 1_000)
GROUPS = (WEB, WEB_ZH, WIKI, WIKI_ZH)


def plan(groups: tuple[Group, ...] = GROUPS, total: float = 1e6, **values: object) -> Plan:
    return allot(groups, build(Mixture, {"floor": 0, **values}), total)


def test_without_shares_it_is_the_corpus() -> None:
    assert plan().planned == pytest.approx([6e5, 2e5, 1.5e5, 0.5e5])


def test_a_share_leaves_the_proportions_inside_and_outside() -> None:
    found = plan(sources={"wiki": 0.6})
    assert found.planned == pytest.approx([3e5, 1e5, 4.5e5, 1.5e5])  # 3:1 in English and Chinese, in both sources


def test_shares_along_two_axes_keep_the_odds_ratio() -> None:
    """What iterative proportional fitting is: both margins are met, and the table's odds ratio stays the corpus's."""
    groups = (WEB, WEB_ZH, WIKI, Group("wiki", "zh", "text", "CC0-1.0", 1, 3_000_000))
    found = plan(groups, sources={"wiki": 0.5}, languages={"zh": 0.7}).planned
    assert found[2] + found[3] == pytest.approx(5e5)
    assert found[1] + found[3] == pytest.approx(7e5)
    assert found[0] * found[3] / (found[1] * found[2]) == pytest.approx(6e6 * 3e6 / (2e6 * 1.5e6))


def test_what_is_not_named_is_left_out_where_the_shares_are_the_whole() -> None:
    assert plan(sources={"wiki": 1}).planned == pytest.approx([0, 0, 7.5e5, 2.5e5])


def test_the_cap_gives_the_rest_to_the_others() -> None:
    """Wiki is 2M tokens: at most 4M in two epochs of the 8M asked; web has the other 6M, as 3:1."""
    found = plan(total=1e7, sources={"wiki": 0.8}, max_epochs=2)
    assert found.asked == pytest.approx([1.5e6, 0.5e6, 6e6, 2e6])
    assert found.planned == pytest.approx([4.5e6, 1.5e6, 3e6, 1e6])
    assert found.cut == pytest.approx([0, 0, 3e6, 1e6])


def test_the_cap_stays_inside_a_share_while_there_is_room() -> None:
    """English wiki is full; Chinese wiki takes over, and wiki keeps its share."""
    groups = (
        WEB,
        Group("wiki", "en", "text", "CC0-1.0", 1, 100_000),
        Group("wiki", "zh", "text", "CC0-1.0", 1, 900_000),
    )
    found = plan(groups, total=4e6, sources={"wiki": 0.5}, max_epochs=2.1)
    assert found.planned == pytest.approx([2e6, 2e5, 1.8e6])
    groups = (
        WEB,
        Group("wiki", "en", "text", "CC0-1.0", 1, 500_000),
        Group("wiki", "zh", "text", "CC0-1.0", 1, 900_000),
    )
    found = plan(groups, total=4e6, sources={"wiki": 0.5}, languages={"zh": 0.2}, max_epochs=2)
    assert found.planned[1] == pytest.approx(1e6)  # asked 1.2M; nowhere else is English wiki
    assert found.planned.sum() == pytest.approx(4e6)


def test_a_tiny_source_stays_alive_and_no_more_than_its_cap() -> None:
    groups = (*GROUPS, CODE)
    assert plan(groups).planned[-1] == pytest.approx(100, rel=1e-3)  # 1,000 of ten million
    assert plan(groups, floor=0.003).planned[-1] == pytest.approx(3000)
    assert plan(groups, floor=2500).planned[-1] == pytest.approx(2500)
    found = plan(groups, floor=0.05)  # four epochs are all there can be
    assert found.planned[-1] == pytest.approx(4000)
    assert found.planned.sum() == pytest.approx(1e6)
    assert found.raised[-1] == pytest.approx(3900, rel=1e-3)
    assert allot(groups, Mixture(floor=0), 1e6, least=512).planned[-1] == pytest.approx(512)
    assert plan(groups, floor=0.003, sources={"code": 0}).planned[-1] == 0  # asked to be none


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sources": {"wikki": 0.5}}, r"no 'wikki'; did you mean 'wiki'\? \(known: web, wiki\)"),
        ({"languages": {"ja": 0.5}}, r"mixture.languages: the shards hold no 'ja' \(known: en, zh\)"),
        ({"sources": {"web": 0.5, "wiki": 0.4}}, "must sum to 1, not 0.9"),
        ({"sources": {"web": 0.9, "wiki": 0.4}}, "sum to 1.3"),
        ({"sources": {"web": -0.1}}, "a share is a number from 0 to 1"),
        ({"sources": {"web": 0.01}}, "are only 8,"),
        ({"kinds": {"html": 0.2}, "sources": {"web": 0.5}}, "can only be"),
        ({"floor": 600_000}, "the least of all sources together are 1,200,000 tokens"),
        ({"max_epochs": 0}, "max_epochs"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, object], told: str) -> None:
    total = 1e7 if "sources" in values and values["sources"] == {"web": 0.01} else 1e6
    with pytest.raises(ConfigError, match=told):
        plan(total=total, **{"max_epochs": 0.8 if total == 1e7 else 4, **values})


def test_random_tables_keep_total_and_bounds() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        groups = tuple(
            Group(source, language, "text", "CC0-1.0", 1, int(generator.lognormal(10, 2)) + 1)
            for source in "abcde"
            for language in ("en", "zh")
        )
        shares = generator.dirichlet(np.ones(5))
        values = {"sources": dict(zip("abcde", shares.tolist(), strict=True)), "floor": 0.001}
        natural = np.array([group.tokens for group in groups])
        total = float(natural.sum() * generator.uniform(0.1, 3.9))
        found = plan(groups, total, **values)
        assert found.planned.sum() == pytest.approx(total)
        assert (found.planned <= 4 * natural * (1 + 1e-9)).all()
        by_source = found.planned.reshape(5, 2).sum(1)
        room = natural.reshape(5, 2).sum(1) * 4
        free = (by_source < room * (1 - 1e-6)) & (by_source > 0.0011 * total)
        ratio = by_source[free] / shares[free]  # no bound, no change of what is asked between them
        assert ratio.max(initial=0) <= ratio.min(initial=np.inf) * (1 + 1e-3) or not free.any()
