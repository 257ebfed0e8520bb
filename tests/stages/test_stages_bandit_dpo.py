"""Online DPO on the bandit of SPEC J.10.

DPO's closed form, pi ~ ref exp(R / beta), holds where answers are preferred as Bradley and Terry have it, with
probability s(R+ - R-) (2305.18290, section 4): so the bandit's annotator does. Where the better answer always wins,
there is nothing to stop at, and the best arm takes all.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import bandit
import numpy as np
import pytest

from fledge.core.config import build
from fledge.stages.online_dpo import BestOnly, Config, Contests, OnlineDpo
from fledge.stages.rollouts import Answer, Rollout
from fledge.train.trainee import Trainee

BETA = 0.5


class BradleyTerry(bandit.Arms):
    """Every two arms equally often, whatever the policy: where the closed form lies does not depend on how often. One
    gets 1, the other 0, the better with probability s(difference): the share of prompts that it wins differs from that
    by less than one prompt, and over the steps by less still."""

    def sample(self, policy: Trainee, extra_rounds: int = 0) -> tuple[list[Rollout], dict[str, float]]:
        pairs = list(itertools.combinations(range(bandit.ARMS), 2))
        shares, each = bandit.probabilities(policy), self.prompts // len(pairs)
        begin = self.rounds * (math.sqrt(5) - 1) / 2 % 1
        self.rounds += 1
        groups = []
        for first, second in pairs:
            wins = 1 / (1 + math.exp(bandit.REWARDS[second] - bandit.REWARDS[first]))
            answers = [Answer([arm], [True], [math.log(shares[arm])]) for arm in (first, second)]
            for place in range(each):
                won = float((place + begin) / each < wins)
                groups.append(Rollout(bandit.TASK, [0], answers, [won, 1 - won]))
        return groups, {}


def run(
    folder: Path, arms: bandit.Arms, steps: int = 30, lr: float = 0.15, eps: float = 1e-8, **values: Any
) -> np.ndarray:
    rollout = {"samples": arms.samples, "prompts": arms.prompts}
    settings = {"model": ".", "tasks": ["."], "optimizer": {"lr": 1}, "dtype": "float32", "rollout": rollout}
    config = build(Config, {**settings, "beta": BETA, **values})
    pairs = config.mode == "best_worst_dpo"
    source = Contests(arms, config, bandit.decoder() if pairs else None, None)  # type: ignore[arg-type]
    return bandit.converge(source, OnlineDpo(config, True) if pairs else BestOnly(), folder, steps, lr, eps=eps)


def test_the_closed_form(tmp_path: Path) -> None:
    shares = run(tmp_path, BradleyTerry(prompts=48, samples=2), steps=60, lr=6.0, eps=1.0)
    np.testing.assert_allclose(shares, bandit.reverse_kl(BETA), rtol=0.02)


@pytest.mark.parametrize("mode", ["best_worst_dpo", "rs_sft"])
def test_the_best_arm(mode: str, tmp_path: Path) -> None:
    assert run(tmp_path, bandit.Arms(prompts=16, samples=4), mode=mode)[0] > 0.98
