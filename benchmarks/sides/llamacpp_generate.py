"""The peer: new tokens a second from llama.cpp through its Python bindings, on the same weights written as GGUF.

    python benchmarks/sides/llamacpp_generate.py --prompts 8 --samples 8 [--greedy] [--weights bf16]

A prompt is computed once and its cache shared by its samples; tokens are drawn by llama.cpp's own samplers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import work

ROWS = 2048  # tokens of a batch at most
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers.": "blk.",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--size", default="tiny8k")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--greedy", action="store_true")
    parser.add_argument("--weights", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--cache", default="one", choices=["one", "apart"], help="for all sequences, or one for each")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=3, help="timed calls")
    arguments = parser.parse_args()
    rows = arguments.prompts * arguments.samples
    call = generator(gguf_file(arguments.size, arguments.weights), arguments)
    seconds, first = work.timed(call, arguments.steps, 1)
    work.report(
        rows * arguments.new / work.median(seconds), first, ("llama-cpp-python",), dtype=arguments.weights,
        threads=arguments.threads, step_seconds=[round(s, 4) for s in seconds],
    )  # fmt: skip


def generator(path: Path, arguments: argparse.Namespace) -> Callable[[int], None]:
    """-> a function that generates for all rows once."""
    import llama_cpp as lc

    lc.llama_backend_init()
    silent = lc.llama_log_callback(lambda *_: None)
    lc.llama_log_set(silent, None)
    model = lc.llama_model_load_from_file(str(path).encode(), lc.llama_model_default_params())
    rows = arguments.prompts * arguments.samples
    settings = lc.llama_context_default_params()
    shared = arguments.prompts if arguments.cache == "one" else rows
    settings.n_ctx = shared * arguments.length + rows * (arguments.new + 8)
    settings.n_batch = settings.n_ubatch = ROWS
    settings.n_seq_max, settings.kv_unified = rows, arguments.cache == "one"
    settings.n_threads = settings.n_threads_batch = arguments.threads
    context = lc.llama_init_from_model(model, settings)
    memory = lc.llama_get_memory(context)
    batch = lc.llama_batch_init(ROWS, 0, 1)
    samplers = [
        lc.llama_sampler_init_greedy() if arguments.greedy else lc.llama_sampler_init_dist(i) for i in range(rows)
    ]
    prompts = work.ids(0, arguments.prompts, arguments.length, work.IDS)
    keep: list[Any] = [silent, model]

    def forward(entries: Sequence[tuple[int, int, int, bool]]) -> None:
        """Entries of (token, position, row, whether its logits are wanted), ROWS at most."""
        batch.n_tokens = len(entries)
        for i, (token, position, row, wanted) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = row
        failed = lc.llama_decode(context, batch)
        assert failed == 0, f"llama_decode said {failed}"

    def call(_: int) -> None:
        assert keep
        lc.llama_memory_clear(memory, True)
        last = [0] * rows
        each = max(1, ROWS // arguments.length)
        for start in range(0, arguments.prompts, each):
            part = range(start, min(start + each, arguments.prompts))
            forward([
                (int(token), place, p * arguments.samples, place == arguments.length - 1)
                for p in part for place, token in enumerate(prompts[p])
            ])  # fmt: skip
            for number, p in enumerate(part):
                first = p * arguments.samples
                end = (number + 1) * arguments.length - 1
                for row in range(first, first + arguments.samples):
                    last[row] = lc.llama_sampler_sample(samplers[row], context, end)
                    if row > first:
                        lc.llama_memory_seq_cp(memory, first, row, -1, -1)
        for step in range(arguments.new - 1):
            forward([(token, arguments.length + step, row, True) for row, token in enumerate(last)])
            last = [lc.llama_sampler_sample(samplers[row], context, row) for row in range(rows)]

    return call


def gguf_file(size: str, weights: str) -> Path:
    """The model folder's weights in llama.cpp's format, written once."""
    folder = work.model_folder(size)
    path = folder / f"model-{weights}.gguf"
    if path.exists() and path.stat().st_mtime > (folder / "model.safetensors").stat().st_mtime:
        return path
    import json

    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    c = work.shape(size)
    temporary = path.with_suffix(".tmp")
    writer = gguf.GGUFWriter(str(temporary), "qwen2")
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    definition = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = {**definition["model"]["vocab"], **{t["content"]: t["id"] for t in definition["added_tokens"]}}
    tokens = [f"<unused{i}>" for i in range(c["vocab_size"])]
    for token, number in vocabulary.items():
        tokens[number] = token
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([" ".join(pair) for pair in definition["model"]["merges"]])
    for name, value in load_file(folder / "model.safetensors").items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        if weights == "bf16" and value.ndim == 2:
            bits = value.astype(np.float32).view(np.uint32)
            rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
            writer.add_tensor(name, rounded.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)
    return path


if __name__ == "__main__":
    main()
