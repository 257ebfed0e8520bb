"""How fast the engine is on this machine: what forecasts of evaluation and reinforcement learning ask."""

from __future__ import annotations

import time

import torch

from fledge.core.machine import compute_dtype
from fledge.generate.engine import Engine, Request
from fledge.generate.sampling import Sampling
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder

_PROMPT, _NEW = 48, 24  # tokens of the timed requests


@torch.no_grad()
def tokens_per_second(
    shape: DecoderConfig, rows: int, seconds: float, dtype: str = "auto", compiled: bool = True
) -> float:
    """Tokens a second of greedy replies on `rows` rows, prompts included, from real generation with random weights.
    ``compiled``: with loops of our own, where they can be."""
    decoder = Decoder(shape)
    decoder.initialise(0)
    engine = Engine((decoder.to(compute_dtype(dtype)).eval(), None), max_rows=rows, compile=None if compiled else False)
    length = min(_PROMPT, shape.max_position_embeddings - _NEW)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(shape.vocab_size, (rows, length), generator=generator).tolist()
    sampling = Sampling(temperature=0, max_new_tokens=_NEW)
    requests = [Request(prompt, 1, sampling, ()) for prompt in prompts]
    engine.generate(requests)  # what is done once is not counted
    made, started = 0, time.perf_counter()
    while not made or time.perf_counter() - started < seconds / 4:
        made += sum(len(one.tokens) for (one,) in engine.generate(requests))
    return made / (time.perf_counter() - started)
