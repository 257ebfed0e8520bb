"""The peer: new tokens a second from transformers' generate, prompts included. No answer stops early.

    python benchmarks/sides/transformers_generate.py --prompts 8 --samples 8 [--greedy] [--static] [--compile]
"""

from __future__ import annotations

import argparse
from typing import Any

import work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8, help="answers a prompt")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights")
    parser.add_argument("--static", action="store_true", help="a cache of fixed size")
    parser.add_argument("--compile", action="store_true", help="a cache of fixed size and the forward pass compiled")
    parser.add_argument("--steps", type=int, default=3, help="timed calls")
    arguments = parser.parse_args()
    work.quiet()
    import torch
    from transformers import Qwen2ForCausalLM

    folder = work.model_folder(arguments.size)
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=getattr(torch, arguments.dtype)).eval()
    settings = model.generation_config
    settings.eos_token_id, settings.pad_token_id = None, 0
    settings.do_sample, settings.max_new_tokens = not arguments.greedy, arguments.new
    if not arguments.greedy:
        settings.temperature, settings.top_k, settings.top_p = 1.0, None, None
    if arguments.compile:
        model.forward = torch.compile(model.forward, dynamic=False)
    ids = torch.from_numpy(work.ids(0, arguments.prompts, arguments.length, work.IDS))
    ids = ids.repeat_interleave(arguments.samples, 0)
    extra: dict[str, Any] = {"cache_implementation": "static"} if arguments.static or arguments.compile else {}

    @torch.inference_mode()
    def call(_: int) -> None:
        made = model.generate(ids, attention_mask=torch.ones_like(ids), **extra)
        assert made.shape[1] == arguments.length + arguments.new, f"rows of {made.shape[1]} tokens"

    seconds, first = work.timed(call, arguments.steps, 1)
    work.report(
        len(ids) * arguments.new / work.median(seconds), first, ("torch", "transformers"), dtype=arguments.dtype,
        threads=torch.get_num_threads(), step_seconds=[round(s, 4) for s in seconds],
    )  # fmt: skip


if __name__ == "__main__":
    main()
