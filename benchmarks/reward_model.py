"""A reward model on pairs, prompts of 512 tokens with two answers of 128, pairs a second: ours against TRL.

    python benchmarks/reward_model.py [--rounds 3] [--steps 2] [--quick]
"""

from __future__ import annotations

import sys

from beside_trl import ours, peers
from pair import Row, main, parser


def row(steps: int) -> Row:
    work = ("reward", "--size", "tiny8k", "--batch", "4", "--length", "512", "--new", "128", "--steps", str(steps))
    return Row("reward model 512+2x128", "pairs/s", ours(work), peers(work), ("tiny8k",))


if __name__ == "__main__":
    words = parser(__doc__)
    words.add_argument("--steps", type=int, default=5, help="timed steps of a process")
    arguments = words.parse_args()
    sys.exit(main("reward_model", [row(2 if arguments.quick else arguments.steps)], arguments))
