"""MinHash signatures, one core: ours against datatrove from text, against rensa from hashed shingles.

    python benchmarks/duplicates.py [--rounds 3] [--only text] [--quick]

English documents of 3,400 characters; FineWeb's 14 bands of 8 on word 5-grams. From text, to files: datatrove's first
step (`MinhashDedupSignature`), ours everything that a shard leaves for the global step (exact keys, shingles, bands).
From text, in memory: ours beside datatrove's shingles and signatures without its files. From hashed shingles: rensa's
RMinHash is given the numbers that ours is given.
"""

from __future__ import annotations

import sys

from pair import Peer, Row, Side, main, parser

ONE = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
JOBS = {"files": ("signatures from text, to files", "datatrove"), "text": ("signatures from text", "datatrove"),
        "shingles": ("signatures from hashed shingles", "rensa")}  # fmt: skip


def rows(documents: int) -> list[Row]:
    found = []
    for what, (job, peer) in JOBS.items():
        words = ("--what", what, "--documents")
        ours = Side("fledge_signatures.py", (*words, str(documents)), variables=ONE)
        count = documents if peer == "rensa" else documents // 10  # it takes that much longer
        theirs = Side(f"{peer}_signatures.py", (*words, str(count)), "data", variables=ONE)
        found.append(Row(job, "documents/s", ours, (Peer(peer, False, (theirs,)),)))
    return found


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    sys.exit(main("duplicates", rows(2_000 if arguments.quick else 10_000), arguments))
