"""Greedy decoding of one sequence, 128 + 128 tokens: ours, eager and compiled, against transformers and llama.cpp.

    python benchmarks/greedy.py [--rounds 3] [--only compiled] [--quick]

The goals are against transformers as it comes; tuned, it has a cache of fixed size and a compiled forward pass.
"""

from __future__ import annotations

import sys

from pair import KEEP_MEMORY, Peer, Row, Side, main, parser

if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    one = ("--prompts", "1", "--samples", "1", "--greedy", "--steps", "2" if arguments.quick else "5")
    dtypes = [("--dtype", dtype) for dtype in ("float32", "bfloat16")]
    plain = tuple(Side("transformers_generate.py", (*one, *dtype), "hf") for dtype in dtypes)
    tuned = tuple(Side("transformers_generate.py", (*one, *dtype, "--compile"), "hf", KEEP_MEMORY) for dtype in dtypes)
    llama = tuple(Side("llamacpp_generate.py", (*one, "--weights", w), "llamacpp") for w in ("f32", "bf16"))
    peers = (Peer("transformers", False, plain), Peer("llama.cpp", False, llama))
    compiled = (Peer("transformers", False, plain), Peer("transformers", True, tuned))
    rows = [
        Row("greedy, one sequence", "tokens/s", Side("fledge_generate.py", one), peers, ("tiny8k",)),
        Row("greedy, one sequence, compiled", "tokens/s", Side("fledge_generate.py", (*one, "--compile")), compiled,
            ("tiny8k",)),
    ]  # fmt: skip
    sys.exit(main("greedy", rows, arguments))
