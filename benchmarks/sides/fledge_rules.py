"""Ours: the rules of Gopher, C4 and FineWeb on all documents (see ../corpus_rules.py)."""

from __future__ import annotations

import prose
import work

from fledge.corpus.judging.line_rules import LinesConfig, without
from fledge.corpus.judging.measures import Measures
from fledge.corpus.judging.rules import RulesConfig, judge, measure

TOGETHER = 38  # documents: about as many characters as the chain measures together


def main() -> None:
    texts = prose.reference(prose.arguments().documents)
    lines = LinesConfig(drop=("short", "javascript", "policy", "long_word"))
    config = RulesConfig(sets={"en": ("gopher", "c4", "fineweb")})

    def step(_: int) -> None:
        for begin in range(0, len(texts), TOGETHER):
            page = Measures([without(text, lines)[0] for text in texts[begin : begin + TOGETHER]], "en")
            judge(measure(page, config), config.table("en"), page.pages)

    seconds, first = work.timed(step, 3, 1)
    work.report(len(texts) / work.median(seconds), first, ("fledge", "numpy"))


if __name__ == "__main__":
    main()
