"""The peer: new tokens a second from nanochat's engine (a checkout named by NANOCHAT), one prompt, many samples.

    NANOCHAT=/path/to/nanochat python benchmarks/sides/nanochat_generate.py --samples 64

Its engine takes one prompt at a time, so its best case is measured: all rows are samples of one prompt. Its model has
another architecture (value embeddings, squared ReLU, an untied head) of the same width and depth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import types

import work


class NoStop:
    """A tokenizer whose control tokens are outside the vocabulary: nothing ever stops."""

    def encode_special(self, text: str) -> int:
        return -1

    def get_bos_token_id(self) -> int:
        return -2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=3, help="timed calls")
    arguments = parser.parse_args()
    checkout = os.environ.get("NANOCHAT") or sys.exit("set NANOCHAT=/path/to/a/checkout of nanochat")
    os.environ["NANOCHAT_DTYPE"] = arguments.dtype
    sys.path.insert(0, checkout)
    sys.modules.setdefault("rustbpe", types.ModuleType("rustbpe"))  # its tokenizer imports it; nothing here uses it
    import logging

    import torch
    from nanochat.engine import Engine
    from nanochat.gpt import GPT, GPTConfig

    logging.disable(logging.WARNING)
    c = work.shape(arguments.size)
    with torch.device("meta"):
        model = GPT(
            GPTConfig(sequence_len=2048, vocab_size=c["vocab_size"], n_layer=c["num_hidden_layers"],
                      n_head=c["num_attention_heads"], n_kv_head=c["num_key_value_heads"], n_embd=c["hidden_size"],
                      window_pattern="L")
        )  # fmt: skip
    model.to_empty(device="cpu")
    model.init_weights()
    engine = Engine(model, NoStop())
    prompt = work.ids(0, 1, arguments.length, work.IDS)[0].tolist()

    def call(_: int) -> None:
        made = engine.generate(prompt, num_samples=arguments.samples, max_tokens=arguments.new,
                               temperature=0.0 if arguments.greedy else 1.0)  # fmt: skip
        assert sum(len(column) for column, _ in made) == arguments.samples * arguments.new

    seconds, first = work.timed(call, arguments.steps, 1)
    commit = subprocess.run(["git", "-C", checkout, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    work.report(
        arguments.samples * arguments.new / work.median(seconds), first, ("torch",), dtype=arguments.dtype,
        commit=commit.stdout.strip() or "unknown", parameters=sum(p.numel() for p in model.parameters()),
        threads=torch.get_num_threads(), step_seconds=[round(s, 4) for s in seconds],
    )  # fmt: skip


if __name__ == "__main__":
    main()
