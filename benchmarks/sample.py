"""Sampling 64 sequences, 128 new tokens after 128: ours against transformers, nanochat and llama.cpp.

    python benchmarks/sample.py [--rounds 3] [--peer llama] [--quick]

Eight prompts with eight samples each. Every peer at the better of float32 and bf16 weights. nanochat's engine takes
one prompt, so there it is 1 x 64 on both sides. llama.cpp has the same weights, as GGUF.
"compiled" is our engine's compiled step.
"""

from __future__ import annotations

import sys

from pair import KEEP_MEMORY, Peer, Row, Side, main, parser

if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    calls = ("--steps", "1" if arguments.quick else "3")
    eight = ("--prompts", "8", "--samples", "8", *calls)
    dtypes = [("--dtype", dtype) for dtype in ("float32", "bfloat16")]
    plain = tuple(Side("transformers_generate.py", (*eight, *dtype), "hf") for dtype in dtypes)
    tuned = tuple(Side("transformers_generate.py", (*eight, *dtype), "hf", KEEP_MEMORY) for dtype in dtypes)
    llama = tuple(
        Side("llamacpp_generate.py", (*eight, "--weights", weights, "--cache", cache), "llamacpp")
        for weights in ("f32", "bf16") for cache in ("one", "apart")
    )  # fmt: skip
    nano = tuple(Side("nanochat_generate.py", ("--samples", "64", *calls, *dtype), "nanochat") for dtype in dtypes)
    ours = Side("fledge_generate.py", eight)
    one = Side("fledge_generate.py", ("--prompts", "1", "--samples", "64", *calls, "--compile"))
    rows = [
        Row("sampling 64 sequences", "new tokens/s", ours,
            (Peer("transformers", False, plain), Peer("transformers", True, tuned), Peer("llama.cpp", False, llama)),
            ("tiny8k",)),
        Row("sampling 64 sequences, compiled", "new tokens/s", Side("fledge_generate.py", (*eight, "--compile")),
            (Peer("transformers", False, plain), Peer("llama.cpp", False, llama)), ("tiny8k",)),
        Row("sampling 64 sequences of one prompt", "new tokens/s", one, (Peer("nanochat", False, nano),), ("tiny8k",)),
    ]  # fmt: skip
    sys.exit(main("sample", rows, arguments))
