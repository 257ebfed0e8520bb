"""How long an evaluation will take: what a dry run asks."""

from __future__ import annotations

import time

import torch

from fledge.core.bench import Bench
from fledge.core.errors import FledgeError
from fledge.core.readers import open_text
from fledge.evaluate.stage import Config
from fledge.generate.engine import Engine, Request
from fledge.generate.sampling import Sampling
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.hf import load_config

_PROMPT, _NEW = 48, 24  # tokens of the timed requests


def items_of(config: Config, bench: Bench) -> int:
    """Number of tasks: of the files if they are there, else of the microworld that will write them."""
    total = 0
    for path in config.task_files:
        if path.exists():
            with open_text(path) as file:
                total += sum(1 for line in file if line.strip())
        elif (planned := bench.at(path)) is not None and planned.stage == "microworld":
            from fledge.microworld.skills.table import LANGUAGES, SKILLS

            total += int(getattr(planned.config, "tests_per_skill", 0)) * len(SKILLS) * len(LANGUAGES)
        else:
            total += int(bench.fact(path, f"{path.stem}_rows", 0))
    if config.limit is not None and total:
        from fledge.microworld.skills.table import LANGUAGES, SKILLS

        total = min(total, config.limit * len(SKILLS) * len(LANGUAGES))
    return total


def shape_of(config: Config, bench: Bench) -> DecoderConfig | None:
    """Shape of the model: as an earlier stage planned it, else as its folder says."""
    known = bench.fact(config.model, "shape")
    if known is not None:
        return DecoderConfig.model_validate(known)
    try:
        return load_config(config.model)
    except FledgeError:
        return None


@torch.no_grad()
def tokens_per_second(shape: DecoderConfig, rows: int, seconds: float) -> float:
    """Tokens a second of greedy replies on `rows` rows, prompts included, from real generation with random weights."""
    decoder = Decoder(shape)
    decoder.initialise(0)
    engine = Engine((decoder.eval(), None), max_rows=rows)
    length = min(_PROMPT, shape.max_position_embeddings - _NEW)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(shape.vocab_size, (rows, length), generator=generator).tolist()
    sampling = Sampling(temperature=0, max_new_tokens=_NEW)
    requests = [Request(prompt, 1, sampling, ()) for prompt in prompts]
    engine.generate(requests[:2])  # what is done once is not counted
    made, started = 0, time.perf_counter()
    while not made or time.perf_counter() - started < seconds / 4:
        made += sum(len(one.tokens) for (one,) in engine.generate(requests))
    return made / (time.perf_counter() - started)
