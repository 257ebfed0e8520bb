"""Several modules in one loop: one that is frozen at first, examples that are one module's alone, steps with nothing to
train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_examples import documents, rankings

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.scalar import ScalarDecoder
from fledge.stages.reward import BradleyTerry
from fledge.train.batch import Example
from fledge.train.loop import GlobalBatch, Loop, LoopConfig
from fledge.train.metrics import read_metrics
from fledge.train.objective import Likelihood, Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.schedule import ScheduleConfig
from fledge.train.trainee import Trainee

STEPS, FROZEN = 7, 3
OPTIMIZER = OptimizerConfig(lr=1e-2, schedule=ScheduleConfig(kind="cosine", warmup=2))


class Numbered:
    """Source: other documents at each step. ``first``: the number of its first step."""

    def __init__(self, first: int = 0, more: list[Example] | None = None) -> None:
        self.first, self.more = first, more or []

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        return GlobalBatch([*documents(4, seed=self.first + step), *self.more])

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class Passes(Trainee):
    """Counts the micro-batches that it is asked about, and notes its weights after each step of the loop."""

    passes = 0

    def loss(self, *args: Any, **kwargs: Any) -> Any:
        self.passes += 1
        return super().loss(*args, **kwargs)


def module(config: DecoderConfig, seed: int, frozen: int = 0, dtype: torch.dtype = torch.float32) -> Passes:
    decoder = Decoder(config)
    decoder.initialise(seed)
    return Passes(decoder, OPTIMIZER, dtype, frozen=frozen)


def trained(
    trainees: Mapping[str, Trainee], steps: int, folder: Path, source: Numbered, objective: Objective | None = None
) -> list[dict[str, float]]:
    config = LoopConfig(micro_tokens=64, tensorboard=False)
    Loop(config, trainees, source, objective or Likelihood(), steps, folder, "").run()
    return read_metrics(folder)


def weights(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainee.decoder.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_frozen_module_neither_passes_nor_moves(tiny_decoder: Decoder, tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        policy = module(tiny_decoder.config, 0, frozen=FROZEN, dtype=dtype)
        value = module(tiny_decoder.config, 1, dtype=dtype)
        before = weights(policy)
        rows = trained({"policy": policy, "value": value}, FROZEN, tmp_path / f"{dtype}", Numbered())
        assert same(weights(policy), before)
        assert policy.passes == 0
        assert all(p.grad is None for p in policy.compute.parameters())
        assert not any(optimizer.state for optimizer in policy.optimizers), "its moments are not touched"
        assert value.passes >= FROZEN
        assert [row["lr"] for row in rows] == [0.0] * FROZEN, "the log says that it stands still"
        assert all("grad_norm" not in row and row["value_grad_norm"] > 0 for row in rows)


def test_a_thawed_module_is_one_that_begins_then(tiny_decoder: Decoder, tmp_path: Path) -> None:
    """Bit for bit: its schedule, its moments and its bias correction count its own steps; its neighbour's do not."""
    policy = module(tiny_decoder.config, 0, frozen=FROZEN)
    value = module(tiny_decoder.config, 1)
    rows = trained({"policy": policy, "value": value}, STEPS, tmp_path / "both", Numbered())
    late = module(tiny_decoder.config, 0)
    alone = trained({"policy": late}, STEPS - FROZEN, tmp_path / "late", Numbered(FROZEN))
    assert same(weights(policy), weights(late))
    assert [row["lr"] for row in rows[FROZEN:]] == [row["lr"] for row in alone]
    other = module(tiny_decoder.config, 1)
    trained({"value": other}, STEPS, tmp_path / "alone", Numbered())
    assert same(weights(value), weights(other))


def test_what_is_one_modules_alone(tiny_decoder: Decoder, tmp_path: Path) -> None:
    """Examples of the policy's are no work for the value, and change it only as a larger denominator does."""
    own = [Example(e.segments, "policy") for e in documents(5, seed=99)]
    policy, value = module(tiny_decoder.config, 0), module(tiny_decoder.config, 1)
    trained({"policy": policy, "value": value}, 1, tmp_path / "beside", Numbered(more=own))
    assert value.passes < policy.passes
    both = module(tiny_decoder.config, 0)
    trained({"policy": both}, 1, tmp_path / "all", Numbered(more=[Example(e.segments) for e in own]))
    assert same(weights(policy), weights(both))


class Pausing(Numbered):
    """In its second step nothing is trained on; in its third nothing of the policy's."""

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        examples = list(super().next(step, models).examples)
        if step == 1:
            examples = [unweighted(example) for example in examples]
        if step == 2:
            examples = [
                *[replace(e, module="value") for e in examples],
                replace(unweighted(examples[0]), module="policy"),
            ]
        return GlobalBatch(examples)


def unweighted(example: Example) -> Example:
    return Example(tuple(replace(s, weight=np.zeros_like(s.weight)) for s in example.segments))


class OrNothing(Likelihood):
    """As online stages: a batch of which nothing is trained on is no error."""

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        return {"nll": super().denominators(examples)["nll"] or 1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_nothing_is_trained_on_nothing_moves(dtype: torch.dtype, tiny_decoder: Decoder, tmp_path: Path) -> None:
    """Not by weight decay or by the moments of the step before; and the moments wait as well."""
    both = {"policy": module(tiny_decoder.config, 0, dtype=dtype), "value": module(tiny_decoder.config, 1, dtype=dtype)}
    loop = Loop(LoopConfig(micro_tokens=64), both, Pausing(), OrNothing(), STEPS, tmp_path, "")
    seen = []
    for step in range(4):
        row = loop.step(step)
        moments = [float(sum(s["step"] for s in o.state.values())) for t in both.values() for o in t.optimizers]
        seen.append((row, [weights(trainee) for trainee in both.values()], moments))
    (_, first, begun), (second_row, second, waited), (third_row, third, _), (_, fourth, _) = seen
    assert same(first[0], second[0])
    assert same(first[1], second[1])
    assert begun == waited
    assert second_row["lr"] == second_row["value_lr"] == second_row["loss"] == 0
    assert same(second[0], third[0])
    assert not same(second[1], third[1])
    assert third_row["lr"] == 0 < third_row["value_lr"]
    assert not same(third[0], fourth[0])
    for trainee in both.values():
        assert all(p.grad is None for p in [*trainee.decoder.parameters(), *trainee.compute.parameters()])


class Ranked(Numbered):
    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        return GlobalBatch([unweighted(example) for example in rankings(seed=step)])


def test_a_reward_model_learns_without_tokens_to_predict(tiny_decoder: Decoder, tmp_path: Path) -> None:
    """It is read at the ends of answers."""
    decoder = ScalarDecoder(tiny_decoder.config)
    decoder.initialise(0)
    decoder.start_score("normal", 1)
    trainee = Trainee(decoder, OPTIMIZER)
    before = weights(trainee)
    rows = trained({"policy": trainee}, 2, tmp_path, Ranked(), BradleyTerry())
    assert all(row["trained_tokens"] == 0 < row["grad_norm"] for row in rows)
    assert not any(torch.equal(before[name], after) for name, after in weights(trainee).items())
