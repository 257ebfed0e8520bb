"""Pretraining steps in exact float32 (no product rounded to fewer bits): ours against transformers.

    python benchmarks/pretrain_fp32.py [--rounds 3] [--quick]
"""

from __future__ import annotations

import sys

from pair import main, parser
from pretrain import row

if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 2 if arguments.quick else 5
    rows = [row("tiny8k", 8, steps, ("transformers",), "float32", "pretrain tiny8k, exact fp32")]
    sys.exit(main("pretrain_fp32", rows, arguments))
