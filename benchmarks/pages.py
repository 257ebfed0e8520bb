"""Keys and values in pages beside a block for each cohort: what runs side by side in the same memory.

    python benchmarks/pages.py [--prompts 32] [--samples 8] [--new 1024] [--tokens 32768] [--hidden 256]

Answers end at a random token with a probability of one in a hundred and sixty, so most are a small part of ``new``
long, as in reinforcement learning. Both caches may hold ``tokens`` tokens. Counted: decoding steps until the last one
has ended (on a GPU a step costs about the same for many rows as for few), rows that go on in a step, the most tokens
that there was memory for, and seconds. On a CPU pages are gathered before each product, so seconds mean little there;
on CUDA they are read through their table where torch can. Texts must be as long. Writes results/pages.json.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import torch

from fledge.core.artefact import hardware, versions
from fledge.core.machine import machine, set_switches
from fledge.generate.engine import Engine, Request
from fledge.generate.page_reading import best_reader
from fledge.generate.sampling import Sampling
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder

RESULTS = Path(__file__).parent / "results" / "pages.json"
VOCABULARY, STOPS = 4096, 4096 // 160


def measure(engine: Engine, requests: list[Request]) -> dict[str, Any]:
    """Steps, rows, memory and seconds, from the engine's own steps; and the lengths of what was written."""
    lengths: dict[tuple[int, int], int] = {}
    rows, most, started = [], 0, time.perf_counter()
    for _, cohorts in engine._steps(requests):
        rows.append(sum(cohort.live for cohort in cohorts))
        most = max(most, sum(cohort.cache.size for cohort in cohorts))
        for cohort in cohorts:
            if not cohort.live:
                lengths |= {(r, s): len(done.tokens) for r, s, done in cohort.completions()}
    return {
        "steps": len(rows), "rows": sum(rows) / len(rows), "most_tokens": most,
        "seconds": time.perf_counter() - started, "lengths": [lengths[key] for key in sorted(lengths)],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--new", type=int, default=1024, help="tokens that an answer may have")
    parser.add_argument("--tokens", type=int, default=32768, help="that the cache may hold")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model: 4 layers of random weights")
    arguments = parser.parse_args()
    set_switches()
    facts = machine()
    shape = DecoderConfig.model_validate(
        {
            "architecture": "Qwen2ForCausalLM", "vocab_size": VOCABULARY, "hidden_size": arguments.hidden,
            "intermediate_size": 3 * arguments.hidden, "num_hidden_layers": 4, "head_dim": 64,
            "num_attention_heads": arguments.hidden // 64, "num_key_value_heads": max(1, arguments.hidden // 256),
            "max_position_embeddings": 2048,
        }
    )  # fmt: skip
    decoder = Decoder(shape)
    decoder.initialise(0)
    decoder = decoder.to(facts.device, getattr(torch, facts.dtype)).eval()
    draw = random.Random(0)
    sampling = Sampling(max_new_tokens=arguments.new, temperature=1.0)
    requests = [
        Request(
            [draw.randrange(STOPS, VOCABULARY) for _ in range(draw.randrange(60, 400))], arguments.samples,
            sampling.model_copy(update={"seed": i}), range(STOPS),
        )
        for i in range(arguments.prompts)
    ]  # fmt: skip
    rows = []
    for paged, page in ((False, 256), (True, 256), (True, 16)):
        name = f"pages of {page}" if paged else "blocks"
        engine = Engine((decoder, None), max_rows=128, max_tokens=arguments.tokens, paged=paged, page=page)
        found = measure(engine, requests)
        if paged:
            heads = shape.num_attention_heads, shape.num_key_value_heads
            dtype = getattr(torch, facts.dtype)
            found["read"] = best_reader(facts.device, dtype, *heads, shape.head_dim, page)
        rows.append({"cache": name, **found})
        print(
            f"{name}: {found['steps']} steps, {found['rows']:.1f} rows in a step, memory for at most "
            f"{found['most_tokens']:,} tokens, {found['seconds']:.1f} s"
        )
    lengths = [row.pop("lengths") for row in rows]
    if facts.dtype == "float32":
        assert lengths[0] == lengths[1] == lengths[2], "the same, whatever they lie in"
    result = {
        "machine": hardware(), "compute": facts.plain(), "versions": versions(), "settings": vars(arguments),
        "mean_length": sum(lengths[0]) / len(lengths[0]), "rows": rows,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
