"""Pretraining steps, T=512, 8 segments a step: ours against transformers (a plain loop with autocast) and litgpt.

    python benchmarks/pretrain.py [--rounds 3] [--only small30m] [--peer litgpt] [--quick]

Exact float32 is `pretrain_fp32.py`, a vocabulary of 151,936 `pretrain_wide.py`.
"""

from __future__ import annotations

import sys

from pair import KEEP_MEMORY, Peer, Row, Side, main, parser


def row(size: str, batch: int, steps: int, peers: tuple[str, ...], dtype: str = "bfloat16", name: str = "") -> Row:
    """A row of pretraining: every peer as it comes, and tuned: memory kept, and compiled or not."""
    work = ("--size", size, "--batch", str(batch), "--steps", str(steps))
    columns = []
    for peer in peers:
        environment = {"transformers": "hf", "litgpt": "litgpt"}[peer]
        plain = (*work, "--model", peer, "--dtype", dtype)
        exact = ("--exact-onednn",) if dtype == "float32" else ()
        columns.append(Peer(peer, False, (Side("transformers_pretrain.py", plain, environment),)))
        tuned = [(*plain, *exact), (*plain, *exact, "--compile")]
        sides = tuple(Side("transformers_pretrain.py", words, environment, KEEP_MEMORY) for words in tuned)
        columns.append(Peer(peer, True, sides))
    ours = Side("fledge_train.py", ("pretrain", *work, "--dtype", dtype))
    return Row(name or f"pretrain {size}", "tokens/s", ours, tuple(columns), (size,))


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 3 if arguments.quick else 6
    peers = ("transformers", "litgpt")
    sys.exit(main("pretrain", [row("tiny8k", 8, steps, peers), row("small30m", 8, steps, peers)], arguments))
