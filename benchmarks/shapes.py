"""What rounding the sizes of products (core/shapes.py) is worth: training steps on batches of uneven size.

    python benchmarks/shapes.py [--steps 40] [--rounds 3]

A B A B in one process: without rounding, with, and again; every batch has its own number of tokens, as packed documents
have. Prints the medians, and writes benchmarks/results/shapes.json. Run it in a process of its own: what is compiled
stays compiled, so each round takes fresh sizes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from fledge.core import shapes
from fledge.core.artefact import hardware, versions
from fledge.core.machine import compute_dtype, machine, set_switches
from fledge.model.decoder import Decoder
from fledge.model.sizes import size
from fledge.train.batch import Example, pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

RESULTS = Path(__file__).parent / "results" / "shapes.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2048)
    arguments = parser.parse_args()
    set_switches()
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"as they come": [], "rounded": []}
    real = shapes.bf16_instructions
    for _ in range(arguments.rounds):
        for name in seconds:
            shapes.bf16_instructions = real if name == "rounded" else (lambda: "")  # type: ignore[assignment]
            seconds[name].append(_run(rng, arguments.steps, arguments.tokens))
    shapes.bf16_instructions = real
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["as they come"] / medians["rounded"]
    facts = {"machine": hardware(), "compute": machine().plain(), "versions": versions(), "seconds_a_step": seconds,
             "ratio": ratio, "tokens": arguments.tokens}  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print({name: f"{1000 * value:.0f} ms a step" for name, value in medians.items()}, f"{ratio:.2f}x")


def _run(rng: np.random.Generator, steps: int, tokens: int) -> float:
    """Median seconds of a step at the quickstart's size."""
    decoder = Decoder(size("fledgling", 4096))
    decoder.initialise(0)
    trainee = Trainee(decoder, OptimizerConfig(name="muon", lr=1e-3), compute_dtype("auto"))
    objective = Likelihood()
    taken = []
    for step in range(steps):
        examples = _batch(rng, tokens)
        started = time.perf_counter()
        loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
        loss.backward()
        trainee.collect()
        trainee.step(step, steps)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[steps // 4 :])


def _batch(rng: np.random.Generator, tokens: int) -> list[Example]:
    examples: list[Example] = []
    while sum(e.tokens for e in examples) < tokens:
        length = int(rng.integers(100, 512))
        weight = np.ones(length, np.float32)
        weight[0] = 0
        examples.append(single(rng.integers(0, 4096, length), weight))
    return examples


if __name__ == "__main__":
    main()
