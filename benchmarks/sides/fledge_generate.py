"""Ours: new tokens a second from fledge's engine, prompts included. No answer stops early.

    python benchmarks/sides/fledge_generate.py --prompts 8 --samples 8 [--greedy] [--compile]
"""

from __future__ import annotations

import argparse
import inspect
from typing import Any

import torch
import work

from fledge.core.machine import compute_dtype, set_switches
from fledge.generate.engine import Engine, Request
from fledge.generate.sampling import Sampling
from fledge.model.hf import load_decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8, help="answers a prompt")
    parser.add_argument("--length", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--compile", action="store_true", help="the engine's compiled step")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=3, help="timed calls")
    arguments = parser.parse_args()
    switches = set_switches()
    dtype = compute_dtype(arguments.dtype)
    decoder = load_decoder(work.model_folder(arguments.size)).to(dtype).eval()
    rows = arguments.prompts * arguments.samples
    extra: dict[str, Any] = {"compile": True} if arguments.compile else {}
    missing = set(extra) - set(inspect.signature(Engine).parameters)
    if missing:
        raise SystemExit("this fledge's engine has no compiled step")
    engine = Engine((decoder, None), max_rows=max(64, rows), **extra)
    ids = work.ids(0, arguments.prompts, arguments.length, work.IDS)
    requests = [
        Request(row.tolist(), arguments.samples,
                Sampling(temperature=0 if arguments.greedy else 1, max_new_tokens=arguments.new, seed=i), ())
        for i, row in enumerate(ids)
    ]  # fmt: skip

    def call(_: int) -> None:
        made = sum(len(answer.tokens) for answers in engine.generate(requests) for answer in answers)
        assert made == rows * arguments.new, f"{made} tokens were made"

    seconds, first = work.timed(call, arguments.steps, 1)
    work.report(
        rows * arguments.new / work.median(seconds), first, ("fledge", "torch"), switches=switches,
        dtype=str(dtype).removeprefix("torch."), threads=torch.get_num_threads(),
        step_seconds=[round(s, 4) for s in seconds],
    )  # fmt: skip


if __name__ == "__main__":
    main()
