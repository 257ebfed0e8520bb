"""SFT with adapters of rank 16 on every projection: against full fine-tuning of ours, and against TRL with peft.

    python benchmarks/lora.py [--rounds 3] [--steps 4] [--quick]

The conversations of `sft.py`, with a vocabulary of 151,936: most of the weights are the embedding, which is frozen.
"""

from __future__ import annotations

import sys

from beside_trl import ours, peers
from pair import Peer, Row, main, parser


def row(size: str, batch: int, steps: int) -> Row:
    full = ("sft", "--size", size, "--batch", str(batch), "--steps", str(steps), "--warmup", "1")
    work = (*full, "--lora", "16")
    columns = (Peer("fledge, all weights", False, (ours(full),)), *peers(work))
    return Row("SFT, adapters, vocabulary 151,936", "real tokens/s", ours(work), columns, (size,))


if __name__ == "__main__":
    words = parser(__doc__)
    words.add_argument("--steps", type=int, default=4, help="timed steps of a process")
    arguments = words.parse_args()
    sys.exit(main("lora", [row("tiny152k", 4, 2 if arguments.quick else arguments.steps)], arguments))
