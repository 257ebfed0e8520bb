"""A GRPO step, 8 prompts with 8 answers of 128 tokens, generation and update: ours against TRL, seconds a step.

    python benchmarks/grpo.py [--rounds 3] [--only 512] [--quick]

Prompts of 128 and of 512 tokens; the reward is the same trivial function on both sides.
"""

from __future__ import annotations

import sys

from beside_trl import ours, peers
from pair import Row, main, parser


def row(prompt: int, steps: int) -> Row:
    work = ("grpo", "--size", "tiny8k", "--batch", "8", "--samples", "8", "--length", str(prompt), "--new", "128",
            "--steps", str(steps), "--warmup", "1")  # fmt: skip
    name = f"GRPO step 8x8, {prompt}+128"
    return Row(name, "s/step", ours(work), peers(work), ("tiny8k",), lower=True)


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 1 if arguments.quick else 2
    sys.exit(main("grpo", [row(128, steps), row(512, steps)], arguments))
