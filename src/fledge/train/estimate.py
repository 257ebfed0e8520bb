"""How long training will take on this machine: measured on a few real steps of the same shape, not assumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.bench import Bench
from fledge.core.machine import compute_dtype, cxx_compiler
from fledge.core.readers import read_rows
from fledge.model.compiled import by_torch, loops, worth_compiling
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.train.batch import Example, pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.schedule import steps_of
from fledge.train.trainee import Trainee

WARM_UP = 3  # steps whose time does not count: code is compiled and memory taken in them
START_SECONDS = 4.0  # interpreter, imports, reading data, writing the model
# Where torch's compiler makes the passes:
COMPILING_SECONDS = 8.0  # what it has compiled before is read; the first time it is 15-30 s
PASSES_GAIN = 1.2  # of a step, docs/switches.md
UNKNOWN_ROW = 80  # tokens of a record, where the stage that writes it does not say
RECORD_BYTES = 5.0  # of JSON for a token of a record: a guess, keys and braces included
ASSUMED_FLOPS = 2e11  # a second, where nothing may be measured


@dataclass(frozen=True)
class Compute:
    """How a stage is configured to compute."""

    dtype: str
    optimizer: str = "adamw"
    compile: str = "auto"
    merging: int = 0  # bytes a weight that the Online Merging Optimizer takes


def training_estimate(
    bench: Bench, shape: DecoderConfig, tokens: float, batch_tokens: int, length: int, compute: Compute
) -> dict[str, Any]:
    """Parameters, FLOPs, memory and seconds of training on ``tokens`` tokens in segments of ``length``. Where it is
    not known how many (0), only what does not depend on it."""
    size = {
        "parameters": shape.parameters,
        "memory_bytes": training_memory(shape, batch_tokens, length, compute.dtype)
        + shape.parameters * compute.merging,
        "shape": shape.plain(),
    }
    if not tokens:
        return size
    flops = shape.training_flops(length) * tokens
    per_token, steps, start = shape.training_flops(length) / ASSUMED_FLOPS, round(tokens / batch_tokens), START_SECONDS
    if bench.measure:
        compiled = worth_compiling(compute.compile, steps * shape.parameters) and bool(cxx_compiler())
        key = f"train {shape.parameters} {batch_tokens} {length} {compute} {compiled}"
        per_token = bench.once(
            key, lambda: measure_training(shape, batch_tokens, length, compute, bench.seconds, compiled)
        )
        start += COMPILING_SECONDS if compiled and by_torch() else 0.0
    return {**size, "tokens": tokens, "steps": steps, "flops": flops, "seconds": start + tokens * per_token}


def stage_estimate(
    bench: Bench, model: Path, data: Sequence[Path], epochs: float, batch: int, compute: Compute, passes: float = 1.0,
    replayed: float = 0.0, steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tuning on records. ``passes``: forward and backward as 1, so a reference's forward adds a third;
    ``replayed``: tokens a step beside the stage's own; ``steps``: instead of ``epochs``."""
    shape = model_shape(bench, model)
    rows = sum(records_of(bench, path)[0] for path in data)
    mean = mean_tokens(bench, data)
    if not rows:
        return training_estimate(bench, shape, 0, max(256, round(batch * mean)), int(mean), compute)
    steps = steps or steps_of(rows, epochs, batch)
    tokens = steps * (batch * mean * passes + replayed)
    return training_estimate(bench, shape, tokens, max(256, round(tokens / steps)), int(mean), compute)


def mean_tokens(bench: Bench, data: Sequence[Path]) -> float:
    """Of a record of these files."""
    return float(np.mean([records_of(bench, path)[1] for path in data]))


def records_of(bench: Bench, path: Path) -> tuple[int, float]:
    """Records of a file and tokens of one: as the stage that writes it plans, or as the file has; 0 where it is
    neither planned nor there."""
    rows, mean = bench.of_file(path, "rows"), bench.of_file(path, "mean_tokens")
    if rows is None and path.is_file():
        rows, found = bench.once(f"records {path}", lambda: _count_records(path))
        mean = found if mean is None else mean
    return int(rows or 0), float(UNKNOWN_ROW if mean is None else mean)


def _count_records(path: Path) -> tuple[int, float]:
    lengths = [len(json.dumps(row, ensure_ascii=False).encode()) for _, row in read_rows(path, "skip")]
    return len(lengths), float(np.mean(lengths)) / RECORD_BYTES if lengths else UNKNOWN_ROW


def rollout_estimate(
    bench: Bench, model: Path, tasks: Sequence[Path], steps: int, answers: int, new_tokens: int, compute: Compute,
    replayed: float, rate: Callable[[DecoderConfig, bool], float], passes: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """Reinforcement learning: sampling of every answer, and training on it. ``rate``: sampled tokens a second, of an
    engine that is compiled or not; ``passes``: forward and backward of one model over an answer as 1."""
    shape = model_shape(bench, model)
    typical = min([new_tokens, *(int(bench.of_file(path, "answer_tokens", new_tokens)) for path in tasks)])
    batch = answers * typical + replayed
    tokens = steps * (answers * typical * passes + replayed)
    estimate = training_estimate(bench, shape, tokens, round(batch), typical, compute)
    sampled = 2000.0
    if bench.measure:
        compiled = worth_compiling(compute.compile, steps * shape.parameters)
        sampled = bench.once(f"sample {shape.parameters} {answers} {compute}", lambda: rate(shape, compiled))
    return {**estimate, "seconds": float(estimate["seconds"]) + steps * answers * typical / sampled}


def training_memory(shape: DecoderConfig, batch_tokens: int, length: int, dtype: str) -> int:
    """Bytes: weights with gradient and AdamW's moments in float32, a bf16 copy with gradient, and activations of a
    micro-batch: about 14 vectors of the hidden and 3 of the intermediate size a layer, and attention's scores (which
    attention over tiles does not keep)."""
    width = compute_dtype(dtype).itemsize
    states = shape.parameters * (16 + (4 if width == 2 else 0))
    layer = 14 * shape.hidden_size + 3 * shape.intermediate_size + 2 * shape.num_attention_heads * min(length, 512)
    return int(states + batch_tokens * shape.num_hidden_layers * layer * width)


def reference_memory(shape: DecoderConfig, dtype: str) -> int:
    """Bytes of a frozen model that is asked for log-probabilities: it lies there in float32, and where products are
    computed in bf16 a copy is made of it for as long as it is asked."""
    width = compute_dtype(dtype).itemsize
    return shape.parameters * (4 + (width if width < 4 else 0))


def measure_training(
    shape: DecoderConfig, batch_tokens: int, length: int, compute: Compute, seconds: float, compiled: bool
) -> float:
    """Seconds for one trained token: forward, backward, update, on random tokens of uneven documents.

    A run that will be compiled is timed as it will be; only where torch's compiler makes the passes, which would take
    longer than all else here, what they gain is assumed.
    """
    decoder = Decoder(shape)
    decoder.initialise(0)
    settings = OptimizerConfig.model_validate({"lr": 1e-4, "name": compute.optimizer})
    trainee = Trainee(decoder, settings, compute_dtype(compute.dtype))
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
    with loops(compiled, trainee.dtype):  # builds them where they are not yet
        began = time.perf_counter()
        while len(taken) < 3 + WARM_UP or (time.perf_counter() - began < seconds):
            started = time.perf_counter()
            loss, _, _ = trainee.loss(pack(examples), objective, denominators)
            loss.backward()
            trainee.collect()
            trainee.step(len(taken), 1000)
            taken.append(time.perf_counter() - started)
    gain = PASSES_GAIN if compiled and by_torch() else 1.0
    return float(np.median(taken[WARM_UP:])) / gain / sum(e.tokens for e in examples)


def model_shape(bench: Bench, model: Path) -> DecoderConfig:
    """Of the model that is planned at this place, or that lies there."""
    known = bench.fact(model, "shape")
    if known is not None:
        return DecoderConfig.model_validate(known)
    from fledge.model.hf import load_config

    return load_config(model)
