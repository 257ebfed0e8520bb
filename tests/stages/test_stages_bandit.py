"""Every online algorithm, on the bandit of SPEC J.10, converges to its closed form within 2% of each probability.

With KL towards the start by k1 in the reward, or by k2 in the loss, that is pi ~ ref exp(R / beta). Two things move it,
and both are closed forms too: k3 in the loss follows the forward KL (SPEC J.3), and a group's mean and deviation turn
rewards into advantages whose expectation is not R - b (a group of G without a deviation: (G - 1) / G of it).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bandit
import numpy as np
import pytest

from fledge.core.config import build
from fledge.model.scalar import ScalarDecoder
from fledge.stages.grpo import METHODS, Config, Groups
from fledge.stages.ppo import Config as PpoConfig
from fledge.stages.ppo import Ppo
from fledge.stages.ppo import Rollouts as PpoRollouts
from fledge.train.trainee import Trainee

BETA = 0.5
Run = Callable[[Path], np.ndarray]


def family(samples: int = 2, lr: float = 0.1, steps: int = 30, **values: Any) -> Run:
    """A run of stage grpo's source and objective."""

    def run(folder: Path) -> np.ndarray:
        arms = bandit.Every(samples)
        rollout = {"prompts": len(arms.groups), "samples": samples, "max_new_tokens": 1}
        settings = {"model": ".", "tasks": ["."], "optimizer": {"lr": 1}, "dtype": "float32", "rollout": rollout}
        config = build(Config, {**settings, **values})
        source = Groups(arms, config, bandit.decoder() if config.beta else None, None)  # type: ignore[arg-type]
        return bandit.converge(bandit.Weighted(source, arms), config.objective(), folder, steps, lr)

    return run


def ppo(prompts: int = 32, samples: int = 2, updates: int = 30, **values: Any) -> Callable[[Path], np.ndarray]:
    """A run of stage ppo's: policy and value in one loop."""

    def run(folder: Path) -> np.ndarray:
        settings = {
            "model": ".", "tasks": ["."], "optimizer": {"lr": 1}, "dtype": "float32", "steps": 1000, "beta": BETA,
            "value": {"optimizer": {"lr": 0.03, "weight_decay": 0.0}, "warmup": 0}, "whiten": False,
            "rollout": {"prompts": prompts, "samples": samples, "max_new_tokens": 1},
        }  # fmt: skip
        config = build(PpoConfig, {**settings, **values})
        value = ScalarDecoder(bandit.decoder().config)
        value.initialise(0)
        value.start_score("zero", 0)
        source = PpoRollouts(bandit.Arms(prompts, samples), config, bandit.decoder())  # type: ignore[arg-type]
        others = {"value": Trainee(value, config.value.optimizer)}
        return bandit.converge(source, Ppo(config.clip, config.value.clip), folder, updates, others=others)

    return run


# name -> what runs it, what it must come to
CASES: dict[str, tuple[Run, Callable[[], np.ndarray]]] = {
    "reinforce": (family(1, variant="reinforce", beta=BETA), lambda: bandit.reverse_kl(BETA)),
    "reinforce, k2": (
        family(1, variant="reinforce", beta=BETA, kl_in="loss", kl="k2"), lambda: bandit.reverse_kl(BETA),
    ),
    "rloo": (family(variant="rloo", beta=BETA), lambda: bandit.reverse_kl(BETA)),
    "dr_grpo, k1": (family(variant="dr_grpo", beta=BETA, kl_in="reward"), lambda: bandit.reverse_kl(BETA)),
    "dr_grpo, k2": (family(variant="dr_grpo", beta=BETA, kl="k2"), lambda: bandit.reverse_kl(BETA * 2)),
    "dr_grpo, k3": (family(variant="dr_grpo", beta=BETA), lambda: bandit.forward_kl(BETA * 2)),
    "grpo, k2": (family(3, variant="grpo", beta=1.0, kl="k2"), lambda: bandit.of_groups(1.0, 3)),
    "dapo, k2": (family(3, variant="dapo", beta=1.0, kl="k2"), lambda: bandit.of_groups(1.0, 3)),
    "gspo, k2": (family(3, variant="gspo", beta=1.0, kl="k2"), lambda: bandit.of_groups(1.0, 3)),
    "ppo": (ppo(epochs=1, minibatches=1), lambda: bandit.reverse_kl(BETA)),
    # as many rollouts, not as many updates: each pass follows advantages of where its rollout was sampled
    "ppo, two passes": (ppo(updates=120, epochs=2, minibatches=2), lambda: bandit.reverse_kl(BETA)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_closed_form(name: str, tmp_path: Path) -> None:
    run, want = CASES[name]
    np.testing.assert_allclose(run(tmp_path), want(), rtol=0.02)


def test_the_closed_forms_themselves() -> None:
    """The numbers of SPEC J.10; for one whose advantage is the reward, groups change nothing."""
    np.testing.assert_allclose(bandit.reverse_kl(BETA), [0.6439, 0.2369, 0.0871, 0.0321], atol=5e-5)
    plain = bandit.of_groups(BETA, 3, lambda rewards: rewards)
    np.testing.assert_allclose(plain, bandit.reverse_kl(BETA), rtol=1e-6)
    centred = bandit.of_groups(BETA, 4, lambda rewards: rewards - rewards.mean())
    np.testing.assert_allclose(centred, bandit.reverse_kl(BETA * 4 / 3), rtol=1e-6)
    forward = bandit.forward_kl(BETA)
    assert forward.sum() == pytest.approx(1)
    slope = bandit.REWARDS * forward - (bandit.REWARDS @ forward) * forward + BETA * (0.25 - forward)
    np.testing.assert_allclose(slope, 0, atol=1e-9)  # of E R - beta KL(ref || pi) by the logits


@pytest.mark.parametrize("variant", METHODS)
def test_without_kl_the_best_arm(variant: str, tmp_path: Path) -> None:
    shares = family(variant=variant, steps=20, lr=0.2)(tmp_path)
    assert shares[0] > 0.98
