"""DPO, prompts of 512 tokens with two answers of 128, pairs a second: ours against TRL; reference cached and live.

    python benchmarks/dpo.py [--rounds 3] [--only live] [--quick]
"""

from __future__ import annotations

import sys

from beside_trl import ours, peers
from pair import Row, main, parser


def row(job: str, name: str, steps: int) -> Row:
    work = (job, "--size", "tiny8k", "--batch", "4", "--length", "512", "--new", "128", "--steps", str(steps))
    # padding-free, which TRL has too, builds a dense mask on a CPU
    return Row(name, "pairs/s", ours(work), peers(work), ("tiny8k",))


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 2 if arguments.quick else 5
    rows = [
        row("dpo", "DPO 512+2x128, reference cached", steps),
        row("dpo-live", "DPO 512+2x128, reference live", steps),
    ]
    sys.exit(main("dpo", rows, arguments))
