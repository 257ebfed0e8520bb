"""SFT on uneven conversations with a vocabulary of 151,936: ours against TRL.

    python benchmarks/sft_wide.py [--rounds 3] [--quick]
"""

from __future__ import annotations

import sys

from pair import main, parser
from sft import row

if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    steps = 2 if arguments.quick else 4
    sys.exit(main("sft_wide", [row("tiny152k", 8, steps, "SFT, vocabulary 151,936")], arguments))
