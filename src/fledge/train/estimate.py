"""How long training will take on this machine: measured on a few real steps of the same shape, not assumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.bench import Bench
from fledge.core.machine import compute_dtype
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.train.batch import Example, pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

WARM_UP = 3  # steps whose time does not count: code is compiled and memory taken in them
START_SECONDS = 4.0  # interpreter, imports, reading data, writing the model
UNKNOWN_ROW = 80  # tokens of a record, where the stage that writes it does not say
ASSUMED_FLOPS = 2e11  # a second, where nothing may be measured


def training_estimate(
    bench: Bench,
    shape: DecoderConfig,
    tokens: float,
    batch_tokens: int,
    length: int,
    dtype: str,
    optimizer: str = "adamw",
) -> dict[str, Any]:
    """Parameters, FLOPs, memory and seconds of training on ``tokens`` tokens in segments of ``length``."""
    flops = shape.training_flops(length) * tokens
    per_token = shape.training_flops(length) / ASSUMED_FLOPS
    if bench.measure:
        key = f"train {shape.parameters} {batch_tokens} {length} {dtype} {optimizer}"
        measured = bench.once(
            key, lambda: measure_training(shape, batch_tokens, length, dtype, bench.seconds, optimizer)
        )
        per_token = measured
    return {
        "parameters": shape.parameters,
        "tokens": tokens,
        "steps": round(tokens / batch_tokens),
        "flops": flops,
        "memory_bytes": training_memory(shape, batch_tokens, length, dtype),
        "seconds": START_SECONDS + tokens * per_token,
        "shape": shape.plain(),
    }


def stage_estimate(
    bench: Bench, model: Path, data: Sequence[Path], epochs: float, batch: int, dtype: str, optimizer: str,
    passes: float = 1.0, replayed: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tuning on records. ``passes``: forward and backward as 1, so a reference's forward adds a third;
    ``replayed``: tokens a step beside the stage's own."""
    shape = _shape(bench, model)
    rows = sum(float(bench.of_file(path, "rows", 0)) for path in data)
    mean = mean_tokens(bench, data)
    steps = max(1, round(rows * epochs / batch))
    tokens = steps * (batch * mean * passes + replayed)
    return training_estimate(bench, shape, tokens, max(256, round(tokens / steps)), int(mean), dtype, optimizer)


def mean_tokens(bench: Bench, data: Sequence[Path]) -> float:
    """Of a record of these files, as the stages that write them planned."""
    return float(np.mean([float(bench.of_file(path, "mean_tokens", UNKNOWN_ROW)) for path in data]))


def rollout_estimate(
    bench: Bench, model: Path, tasks: Sequence[Path], steps: int, answers: int, new_tokens: int, dtype: str,
    replayed: float, rate: Callable[[DecoderConfig], float],
) -> dict[str, Any]:  # fmt: skip
    """Reinforcement learning: sampling of every answer, and training on it. ``rate``: sampled tokens a second."""
    shape = _shape(bench, model)
    typical = min([new_tokens, *(int(bench.of_file(path, "answer_tokens", new_tokens)) for path in tasks)])
    tokens = steps * (answers * typical + replayed)
    estimate = training_estimate(bench, shape, tokens, round(tokens / steps), typical, dtype)
    sampled = 2000.0
    if bench.measure:
        sampled = bench.once(f"sample {shape.parameters} {answers} {dtype}", lambda: rate(shape))
    return {**estimate, "seconds": float(estimate["seconds"]) + steps * answers * typical / sampled}


def training_memory(shape: DecoderConfig, batch_tokens: int, length: int, dtype: str) -> int:
    """Bytes: weights with gradient and AdamW's moments in float32, a bf16 copy with gradient, and activations of a
    micro-batch: about 14 vectors of the hidden and 3 of the intermediate size a layer, and attention's scores."""
    width = 4 if dtype == "float32" else 2
    states = shape.parameters * (16 + (4 if width == 2 else 0))
    layer = 14 * shape.hidden_size + 3 * shape.intermediate_size + 2 * shape.num_attention_heads * min(length, 512)
    return int(states + batch_tokens * shape.num_hidden_layers * layer * width)


def measure_training(
    shape: DecoderConfig, batch_tokens: int, length: int, dtype: str, seconds: float, optimizer: str
) -> float:
    """Seconds for one trained token: forward, backward, update, on random tokens of uneven documents."""
    decoder = Decoder(shape)
    decoder.initialise(0)
    trainee = Trainee(decoder, OptimizerConfig.model_validate({"lr": 1e-4, "name": optimizer}), compute_dtype(dtype))
    generator = np.random.default_rng(0)
    examples: list[Example] = []
    while sum(e.tokens for e in examples) < batch_tokens:  # lengths of half to one and a half of the mean
        size = max(2, round(length * generator.uniform(0.5, 1.5)))
        weight = np.ones(size, np.float32)
        weight[0] = 0
        examples.append(single(generator.integers(0, shape.vocab_size, size), weight))
    objective = Likelihood()
    denominators = objective.denominators(examples)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 3 + WARM_UP or (time.perf_counter() - began < seconds):
        started = time.perf_counter()
        loss, _, _ = trainee.loss(pack(examples), objective, denominators)
        loss.backward()
        trainee.collect()
        trainee.step(len(taken), 1000)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[WARM_UP:])) / sum(e.tokens for e in examples)


def _shape(bench: Bench, model: Path) -> DecoderConfig:
    known = bench.fact(model, "shape")
    if known is not None:
        return DecoderConfig.model_validate(known)
    from fledge.model.hf import load_config

    return load_config(model)
