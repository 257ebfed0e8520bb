"""Which snapshots are kept, and that what an optimizer needs is where it needs it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from train_examples import documents

from fledge.model.decoder import Decoder
from fledge.model.tiles import use_tiles
from fledge.train.loop import GlobalBatch, Loop, LoopConfig
from fledge.train.mesh import Mesh
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig, load_optimizer_state, make_optimizers
from fledge.train.snapshot import latest, load_snapshot, save_snapshot
from fledge.train.trainee import Trainee


class Same:
    """Source: the same documents in every step. Stops the run, as a signal would, before step ``until``."""

    def __init__(self, until: int) -> None:
        self.until = until

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        if step == self.until:
            raise KeyboardInterrupt
        return GlobalBatch(documents())

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def test_a_run_that_goes_on_with_something_else_compiled_says_so(tiny_decoder: Decoder, tmp_path: Path) -> None:
    def loop(until: int) -> Loop:
        trainees = {"policy": Trainee(tiny_decoder, OptimizerConfig(lr=1e-3))}
        config = LoopConfig(snapshot_steps=1, tensorboard=False)
        return Loop(config, trainees, Same(until), Likelihood(), 4, tmp_path, "")

    with pytest.raises(KeyboardInterrupt):
        loop(1).run()
    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings(action="error"):
        loop(2).run()
    if why := use_tiles(True):  # which takes no time; passes would
        pytest.skip(f"attention over tiles is not to be had here: {why}")
    try:
        with pytest.warns(UserWarning, match="begun with nothing compiled, goes on with attention"):
            loop(4).run()
    finally:
        use_tiles(False)


def test_what_a_kill_left_does_not_push_out_the_new_snapshot(tiny_decoder: Decoder, tmp_path: Path) -> None:
    """Snapshots go by time: after a kill while 613 was written, the run goes on from 500 and writes 550."""
    trainees = {"policy": Trainee(tiny_decoder, OptimizerConfig(lr=1e-3))}

    def save(step: int) -> None:
        save_snapshot(tmp_path, step, trainees, {}, Mesh())

    def kept() -> list[str]:
        return [place.name for place in sorted(tmp_path.glob("step-*"))]

    save(400)
    save(500)
    for unfinished in (520, 613):
        (tmp_path / f"step-{unfinished:08d}").mkdir()
    save(550)
    assert kept() == ["step-00000500", "step-00000550"]
    place = latest(tmp_path)
    assert place is not None
    assert place.name == "step-00000550"
    state = load_snapshot(tmp_path, trainees, Mesh())
    assert state is not None
    assert state["step"] == 550
    save(600)
    assert kept() == ["step-00000550", "step-00000600"]


def test_the_count_of_steps_lies_with_its_parameter() -> None:
    """Fused AdamW refuses a count on another device. ("meta" stands for an accelerator.)"""
    module = torch.nn.Linear(3, 2, device="meta")
    optimizers = make_optimizers(module, OptimizerConfig(lr=1e-3))
    load_optimizer_state(module, optimizers, {"weight|step": torch.tensor(7.0), "weight|exp_avg": torch.zeros(2, 3)})
    state = optimizers[-1].state[module.weight]
    assert {key: value.device.type for key, value in state.items()} == {"step": "meta", "exp_avg": "meta"}
