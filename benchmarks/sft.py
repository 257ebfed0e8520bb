"""SFT on conversations of uneven (lognormal) length, real tokens a second: ours against TRL.

    python benchmarks/sft.py [--rounds 3] [--quick]

Both train on the answers alone. With a vocabulary of 151,936: `sft_wide.py`.
"""

from __future__ import annotations

import sys

from beside_trl import PLAIN, ours, peers
from pair import Row, main, parser

# TRL's packing makes one row of all; without a kernel for it a dense mask is built, so small rows are best. As many
# tokens a step as eight conversations have, in rows of 1,024.
PACKED = (*PLAIN, "packing=True", "max_length=1024", "per_device_train_batch_size=1", "gradient_accumulation_steps=2")


def row(size: str, batch: int, steps: int, name: str) -> Row:
    work = ("sft", "--size", size, "--batch", str(batch), "--steps", str(steps))
    return Row(name, "real tokens/s", ours(work), peers(work, (PLAIN, PACKED)), (size,))


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 4 if arguments.quick else 10
    sys.exit(main("sft", [row("tiny8k", 8, steps, "SFT, uneven conversations")], arguments))
