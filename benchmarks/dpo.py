"""DPO, prompts of 512 tokens with two answers of 128, pairs a second: ours against TRL; reference cached and live.

    python benchmarks/dpo.py [--rounds 3] [--only live] [--quick]
"""

from __future__ import annotations

import sys

from pair import KEEP_MEMORY, Peer, Row, Side, main, parser


def row(job: str, name: str, steps: int) -> Row:
    work = (job, "--size", "tiny8k", "--batch", "4", "--length", "512", "--new", "128", "--steps", str(steps))
    # gradient checkpointing only costs where memory is at hand; padding-free builds a dense mask on a CPU
    tuned = Side("trl_train.py", (*work, "--set", "gradient_checkpointing=False"), "hf", KEEP_MEMORY)
    peers = (Peer("trl", False, (Side("trl_train.py", work, "hf"),)), Peer("trl", True, (tuned,)))
    return Row(name, "pairs/s", Side("fledge_train.py", work), peers, ("tiny8k",))


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 2 if arguments.quick else 5
    rows = [
        row("dpo", "DPO 512+2x128, reference cached", steps),
        row("dpo-live", "DPO 512+2x128, reference live", steps),
    ]
    sys.exit(main("dpo", rows, arguments))
