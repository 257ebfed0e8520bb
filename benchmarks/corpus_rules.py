"""The English rules of a corpus, one core: ours against datatrove's filters with the same settings.

    python benchmarks/corpus_rules.py [--rounds 3] [--quick]

Gopher's quality and repetition rules, C4's (lines and pages, without terminal punctuation), FineWeb's: of every
document all of them, whatever it fails. The documents are pieces of 3,400 characters of the interpreter's own reference
(`pydoc_data`), which every machine has. Language is left out: datatrove's model has to be downloaded.
"""

from __future__ import annotations

import sys

from pair import Peer, Row, Side, main, parser

ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def rows(documents: int) -> list[Row]:
    ours = Side("fledge_rules.py", ("--documents", str(documents)), variables=ONE)
    theirs = Side("datatrove_rules.py", ("--documents", str(documents // 5)), "data", variables=ONE)
    return [Row("English rules", "documents/s", ours, (Peer("datatrove", False, (theirs,)),))]


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    sys.exit(main("corpus_rules", rows(500 if arguments.quick else 2_000), arguments))
