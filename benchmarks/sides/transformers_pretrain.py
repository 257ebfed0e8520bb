"""The peer: a plain training loop around transformers' Qwen2, as users write one; or around litgpt's model.

    python benchmarks/sides/transformers_pretrain.py --size tiny8k --batch 8 --length 512 [--dtype float32] [--compile]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", choices=["transformers", "litgpt"], default="transformers")
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="bfloat16: by autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile, shapes static")
    parser.add_argument("--exact-onednn", action="store_true",
                        help="float32 products by oneDNN, where a measurement says that they stay float32")  # fmt: skip
    arguments = parser.parse_args()
    work.quiet()
    import torch

    precision = exact_precision() if arguments.exact_onednn else "highest"
    torch.set_float32_matmul_precision(precision)
    model, loss_of = build(arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    model.train()
    vocabulary = work.shape(arguments.size)["vocab_size"]

    def step(index: int) -> None:
        rows = torch.from_numpy(work.ids(index, arguments.batch, arguments.length, vocabulary))
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            loss = loss_of(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds, first = work.timed(step, arguments.steps, arguments.warmup)
    rate = arguments.batch * arguments.length / work.median(seconds)
    packages = ("torch", "transformers") if arguments.model == "transformers" else ("torch", "litgpt")
    work.report(
        rate, first, packages, dtype=arguments.dtype, threads=torch.get_num_threads(), matmul_precision=precision,
        parameters=sum(p.numel() for p in model.parameters()), step_seconds=[round(s, 4) for s in seconds],
    )  # fmt: skip


def build(arguments: argparse.Namespace) -> tuple[Any, Callable[[Any], Any]]:
    """The model, and ids (B, T) -> mean loss of the next tokens."""
    import torch
    import torch.nn.functional as F

    if arguments.model == "transformers":
        from transformers import Qwen2ForCausalLM

        model = Qwen2ForCausalLM.from_pretrained(work.model_folder(arguments.size), dtype=torch.float32)
        model.config.use_cache = False
        run = torch.compile(model, dynamic=False) if arguments.compile else model
        return model, lambda rows: run(input_ids=rows, labels=rows).loss
    from litgpt.config import Config
    from litgpt.model import GPT

    c = work.shape(arguments.size)
    model = GPT(
        Config(
            block_size=arguments.length, vocab_size=c["vocab_size"], padded_vocab_size=c["vocab_size"],
            n_layer=c["num_hidden_layers"], n_head=c["num_attention_heads"], n_query_groups=c["num_key_value_heads"],
            n_embd=c["hidden_size"], head_size=c["head_dim"], intermediate_size=c["intermediate_size"],
            rotary_percentage=1.0, parallel_residual=False, bias=False, attn_bias=True, norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
        )
    )  # fmt: skip
    model.lm_head.weight = model.transformer.wte.weight  # tied, as the others are
    run = torch.compile(model, dynamic=False) if arguments.compile else model
    return model, lambda rows: F.cross_entropy(run(rows)[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten())


def exact_precision() -> str:
    """"medium" hands float32 products to oneDNN. Where the processor has AMX that rounds them to bf16, and it is not
    float32 any more: so the error is measured."""
    import torch

    a, b = torch.randn(256, 512), torch.randn(512, 512)
    exact = a.double() @ b.double()
    torch.set_float32_matmul_precision("medium")
    error = float((torch.mm(a, b).double() - exact).norm() / exact.norm())
    torch.set_float32_matmul_precision("highest")
    return "medium" if error < 1e-5 else "highest"


if __name__ == "__main__":
    main()
