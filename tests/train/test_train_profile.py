"""A profile of steps: everything adds up, each operation is where it belongs, what was made slow or large is found."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from train_examples import documents, groups

from fledge.core.shapes import round_up
from fledge.model.compiled import compile_model, compiled
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.stages.grpo import Grpo
from fledge.train.batch import Example, PackedBatch, cut, pack, single
from fledge.train.loop import GlobalBatch, Loop, LoopConfig
from fledge.train.objective import Likelihood, Objective, Outputs, Terms
from fledge.train.optimizer import OptimizerConfig
from fledge.train.parts import divide
from fledge.train.profile import Profile, take_profile, watched
from fledge.train.trace import (
    ATTENTION,
    CASTS,
    ELEMENTWISE,
    HEAD,
    OPTIMIZER,
    PARTS,
    PROJECTIONS,
    SOURCE,
    Account,
    Amount,
    _is_span,
)
from fledge.train.trainee import Trainee
from fledge.train.watch import PHASES, Load, Watch, watched_trainee

SHAPE = DecoderConfig(
    vocab_size=1000, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
)  # fmt: skip
MICRO = 100


class Same:
    """The same examples in every step, after a pause."""

    def __init__(self, examples: list[Example], pause: float = 0.0) -> None:
        self.examples, self.pause = examples, pause

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        time.sleep(self.pause)
        return GlobalBatch(self.examples)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class Wasteful(Likelihood):
    """Holds 48 MiB in the head, beside what it needs."""

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        held = torch.zeros(48 << 20, dtype=torch.uint8)
        terms = super().terms(batch, outputs, module)
        assert held is not None
        return terms


def profiled(
    folder: Path, examples: list[Example], objective: Objective, dtype: torch.dtype = torch.float32,
    pause: float = 0.0, **options: Any,
) -> Profile:  # fmt: skip
    watch = Watch()
    decoder = Decoder(SHAPE)
    decoder.initialise(0)
    policy = watched_trainee(watch)(decoder, OptimizerConfig(lr=1e-4), dtype)
    loop = Loop(
        LoopConfig(micro_tokens=MICRO), {"policy": policy}, Same(examples, pause), objective, 10, folder, "test"
    )
    return take_profile(watched(loop, watch), watch, warm_up=1, steps=3, **options)


def test_a_loop_of_ours_is_an_operation_and_no_phase() -> None:
    """Its time would be nobody's, and go to Python."""
    names = ("fledge:head", "fledge:module:Block", "fledge::head", "aten::mm")
    assert [_is_span(name) for name in names] == [True, True, False, False]


def test_compiled_loops_have_names_and_belong_where_their_formulas_do(tmp_path: Path) -> None:
    if why := compile_model(True):
        pytest.skip(f"nothing can be compiled here: {why}")
    try:
        found = profiled(tmp_path, documents(), Likelihood())
        names = {operation.name for operation in found.operations}
        assert {"fledge::rms_norm", "fledge::gate_backward"} <= names
        assert not [name for name in names if "Compiled" in name]
        if "attention" in compiled():
            assert {"fledge::attention", "fledge::attention_backward"} <= names
            load = Load()
            for part in cut(documents(), MICRO):
                load.add(pack(part))
            queries = SHAPE.num_attention_heads * SHAPE.head_dim
            assert found.part(ATTENTION).gflop >= 12e-9 * SHAPE.num_hidden_layers * queries * load.pairs
            assert min(found.part(ATTENTION).forward, found.part(ATTENTION).backward) > 0
        if "head" in compiled():
            assert "fledge::head" in names
            trained = sum(example.trained for example in documents())
            assert found.part(HEAD).gflop == pytest.approx(6e-9 * trained * SHAPE.vocab_size * SHAPE.hidden_size)
            assert min(found.part(HEAD).forward, found.part(HEAD).backward) > 0
        else:
            assert "fledge::normalisers" in names
    finally:
        compile_model(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_adds_up_and_operations_are_where_they_belong(tmp_path: Path, dtype: torch.dtype) -> None:
    examples = documents()
    found = profiled(tmp_path, examples, Likelihood(), dtype)
    assert [part.name for part in found.parts] == list(PARTS)
    assert sum(part.seconds for part in found.parts) == pytest.approx(found.seconds)
    assert found.seconds == sorted(found.steps)[1]
    for part in found.parts:
        assert part.forward + part.backward <= part.seconds * 1.000001
    for name in (PROJECTIONS, ATTENTION, HEAD, ELEMENTWISE):
        # weighted_nll makes its gradient in the forward pass, but hands it on in the backward pass
        assert found.part(name).forward > 0, name
        assert found.part(name).backward > 0, name
    assert found.part(OPTIMIZER).seconds > 0

    micro = [pack(part) for part in cut(examples, MICRO)]
    assert found.micro_batches == len(micro) > 1
    body = sum(p.numel() for n, p in Decoder(SHAPE).named_parameters() if n.endswith("proj.weight"))
    # six operations for each weight and row, forward and backward, filled rows included: no product missed or misplaced
    assert found.part(PROJECTIONS).gflop == pytest.approx(6e-9 * body * sum(len(m.tokens) for m in micro))
    rows = sum(round_up(len(m.trained)) for m in micro)
    assert found.part(HEAD).gflop == pytest.approx(6e-9 * rows * SHAPE.vocab_size * SHAPE.hidden_size)
    load = Load()
    for m in micro:
        load.add(m)
    assert (found.tokens, found.trained) == (load.tokens, load.trained) == (
        sum(e.tokens for e in examples), sum(e.trained for e in examples)
    )  # fmt: skip
    assert found.gflop == pytest.approx(load.flops(SHAPE) / 1e9)
    queries = SHAPE.num_attention_heads * SHAPE.head_dim
    assert found.part(ATTENTION).gflop >= 12e-9 * SHAPE.num_hidden_layers * queries * load.pairs

    parameters = SHAPE.parameters
    copied = 2 * parameters if dtype == torch.bfloat16 else 0
    assert found.memory["weights"] == 4 * parameters
    assert found.memory["compute copy"] == copied
    assert found.memory["optimizer state"] >= 8 * parameters
    assert found.memory["float32 gradients"] == (4 * parameters if copied else 0)
    assert found.memory["activations and temporaries"] > 0
    assert found.memory["process at its peak"] > found.memory["peak of tensors"] > 12 * parameters
    assert found.part(CASTS).seconds > 0
    assert json.loads(json.dumps(found.plain()))["parts"][0]["name"] == SOURCE


def test_what_a_step_needs_is_what_the_shape_says() -> None:
    """`DecoderConfig.training_flops`, for a document of which every token is trained on but the first."""
    import numpy as np

    length = 50
    weight = np.ones(length, np.float32)
    weight[0] = 0
    load = Load()
    load.add(pack([single(np.arange(length), weight)]))
    head = 6.0 * SHAPE.vocab_size * SHAPE.hidden_size  # of the first token, which is not predicted
    assert load.flops(SHAPE) == pytest.approx(SHAPE.training_flops(length + 1) * length - head)


def test_a_slow_source_and_a_wasteful_head_are_found(tmp_path: Path) -> None:
    found = profiled(tmp_path, documents(), Wasteful(), pause=0.05)
    assert 0.05 <= found.part(SOURCE).seconds < 0.5  # a busy machine takes longer
    assert found.peak_phase == "head"
    assert 48 << 20 <= found.memory["activations and temporaries"] < 64 << 20
    assert found.peaks["head"] > found.peaks["forward"]


def test_a_step_that_is_divided_adds_up() -> None:
    """Whatever is measured: undisturbed, slower than under the profiler, faster than its operations; by kernels too."""
    operations = {
        (PROJECTIONS, "forward", "aten::mm"): Amount(2.0, 4, 8e9, 0, 2.0),
        (ATTENTION, "backward", "aten::bmm"): Amount(1.0, 2, 2e9, 0, 1.0),
        (CASTS, "gradients", "aten::add_"): Amount(0.5, 2, 0, 4e9, 0.5),
    }
    account = Account(operations, {}, {})
    phases = dict.fromkeys(PHASES, 0.25)
    for timed, slow in ((2.0, 2.5), (4.0, 2.5), (0.1, 2.5)):
        wall, under = ({**phases, "forward": seconds, "backward": seconds} for seconds in (timed, slow))
        for cuda in (False, True):
            parts = {part.name: part for part in divide(account, 2, wall, under, cuda, 1e9)}
            assert sum(part.seconds for part in parts.values()) == pytest.approx(sum(wall.values()))
            assert all(part.seconds >= 0 for part in parts.values())
            assert parts[SOURCE].seconds == 0.25
            assert parts[PROJECTIONS].gflop == 4.0
    parts = {part.name: part for part in divide(account, 2, {**phases, "forward": 2.0}, phases, True, 1e9)}
    assert parts[PROJECTIONS].forward == 1.0, "a part of a GPU's step takes what its kernels take"
    assert parts[CASTS].gbytes == 8.0


def test_groups_and_a_trace(tmp_path: Path) -> None:
    """Objectives that recompute the head, and steps of one rollout: a trace for other programs, too."""
    trace = tmp_path / "trace.json"
    objective = Grpo("grpo", 0.2, 0.2, 0.1, on_policy=False)
    found = profiled(tmp_path, groups(), objective, cycle=2, trace=trace)
    assert found.cycle == 2
    assert len(found.steps) == 3
    assert found.sampled == sum(s.values.get("sampled", 0) for e in groups() for s in e.segments)
    micro = [pack(part) for part in cut(groups(), MICRO)]
    rows = sum(round_up(len(m.trained)) for m in micro)
    products = found.part(HEAD).gflop / (2e-9 * rows * SHAPE.vocab_size * SHAPE.hidden_size)
    assert products == pytest.approx(4), "the head's product, again in the backward pass, and two for gradients"
    assert found.part(HEAD).backward > 0
    names = {event.get("name") for event in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]}
    assert {"fledge:source", "fledge:backward", "fledge:module:SelfAttention", "aten::bmm"} <= names


def test_steps_are_the_same_as_without_a_watch(tmp_path: Path) -> None:
    """What watches changes no bit of the training."""
    results = []
    for watching in (False, True):
        watch = Watch()
        decoder = Decoder(SHAPE)
        decoder.initialise(0)
        make = watched_trainee(watch) if watching else Trainee
        policy = make(decoder, OptimizerConfig(lr=1e-2), torch.bfloat16)
        loop = Loop(
            LoopConfig(micro_tokens=MICRO), {"policy": policy}, Same(documents()), Likelihood(), 5, tmp_path, "test"
        )
        if watching:
            take_profile(watched(loop, watch), watch, warm_up=1, steps=1)
        else:
            for step in range(5):  # one to warm up, one that is timed, twice, and two that are profiled
                loop.step(step)
        results.append({name: p.detach().clone() for name, p in decoder.named_parameters()})
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
