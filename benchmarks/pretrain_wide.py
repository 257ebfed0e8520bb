"""Pretraining steps with a vocabulary of 151,936, 4 segments of 512: ours against transformers. Memory counts too.

    python benchmarks/pretrain_wide.py [--rounds 3] [--quick]
"""

from __future__ import annotations

import sys

from pair import main, parser
from pretrain import row

if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 2 if arguments.quick else 4
    rows = [row("tiny152k", 4, steps, ("transformers",), name="pretrain tiny152k, vocabulary 151,936")]
    sys.exit(main("pretrain_wide", rows, arguments))
