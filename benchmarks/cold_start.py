"""`fledge sft` against `trl sft`: seconds of a command that trains one step and writes the model, from a cold start.

    python benchmarks/cold_start.py [--rounds 3] [--quick]

Tuned: TRL's script without accelerate's launcher, on all cores.
"""

from __future__ import annotations

import sys

from pair import KEEP_MEMORY, Peer, Row, Side, main, parser

if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    peers = (
        Peer("trl", False, (Side("cold_start.py", ("trl",), "hf"),)),
        Peer("trl", True, (Side("cold_start.py", ("trl", "--direct"), "hf", KEEP_MEMORY),)),
    )
    row = Row("cold start of sft, one step", "s", Side("cold_start.py", ("fledge",)), peers, ("tiny8k",), lower=True)
    sys.exit(main("cold_start", [row], arguments))
