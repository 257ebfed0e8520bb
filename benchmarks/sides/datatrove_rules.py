"""datatrove's filters of Gopher, C4 and FineWeb, each on all documents (see ../corpus_rules.py)."""

from __future__ import annotations

import prose
import work
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)


def main() -> None:
    texts = prose.reference(prose.arguments().documents)
    filters = (
        C4QualityFilter(filter_no_terminal_punct=False), GopherRepetitionFilter(), GopherQualityFilter(),
        FineWebQualityFilter(char_duplicates_ratio=0.1),
    )  # fmt: skip

    def step(_: int) -> None:
        for number, text in enumerate(texts):
            document = Document(text=text, id=str(number))
            for one in filters:
                one.filter(document)

    seconds, first = work.timed(step, 3, 1)
    work.report(len(texts) / work.median(seconds), first, ("datatrove", "spacy"))


if __name__ == "__main__":
    main()
