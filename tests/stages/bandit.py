"""The bandit of SPEC J.10: answers of one token over a vocabulary of four, each with a fixed reward, so that what an
algorithm must converge to is known in closed form. A real decoder, objective, source and loop; only the sampling is
made here: every group that could be drawn, with its probability (`Every`), or draws that are spread evenly (`Arms`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fledge.core.records import Message, Task
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.stages.rollouts import Answer, OnlineSource, Rollout
from fledge.train.advantages import group_advantages
from fledge.train.batch import Example, Segment, pack
from fledge.train.loop import GlobalBatch, Loop, LoopConfig, Source
from fledge.train.objective import Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

ARMS = 4
REWARDS = np.array([1.0, 0.5, 0.0, -0.5])
TASK = Task(id="bandit", messages=(Message(role="user", content="?"),), verifier="number", answer={"value": 0})


def decoder() -> Decoder:
    """Uniform over the arms at first: its head is zero, which is also the reference."""
    config = DecoderConfig(
        vocab_size=ARMS, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=8, tie_word_embeddings=False,
    )  # fmt: skip
    made = Decoder(config)
    made.initialise(0)
    with torch.no_grad():
        made.output_weight.zero_()
    return made


def probabilities(policy: Trainee) -> np.ndarray:
    """(4,) of the arms, in float64."""
    arms = [Segment(np.array([arm], np.int32), np.ones(1, np.float32), 0) for arm in range(ARMS)]
    prompt = Segment(np.zeros(1, np.int32), np.zeros(1, np.float32))
    values: np.ndarray = policy.logp(pack([Example((prompt, *arms))])).double().exp().numpy()
    return values / values.sum()


class Every:
    """In the place of `Sampler`: every group of ``samples`` arms that there is (in one order), so that there is no
    noise at all. `Weighted` gives each the probability with which the policy would have drawn it."""

    def __init__(self, samples: int) -> None:
        self.groups = list(itertools.combinations_with_replacement(range(ARMS), samples))
        self.weights: list[float] = []

    def sample(self, policy: Trainee, extra_rounds: int = 0) -> tuple[list[Rollout], dict[str, float]]:
        share = probabilities(policy)
        ways = [math.factorial(len(g)) / math.prod(math.factorial(g.count(a)) for a in set(g)) for g in self.groups]
        self.weights = [way * share[list(group)].prod() for way, group in zip(ways, self.groups, strict=True)]
        return [rollout(group, share) for group in self.groups], {"reward": float(REWARDS @ share)}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


def rollout(arms: Sequence[int], share: np.ndarray) -> Rollout:
    answers = [Answer([arm], [True], [math.log(share[arm])], "stop", str(arm)) for arm in arms]
    return Rollout(TASK, [0], answers, REWARDS[list(arms)].tolist())


@dataclass
class Weighted:
    """A source whose batches are in the order of `Every`'s groups: each group counts by its probability."""

    source: OnlineSource
    arms: Every

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        batch = self.source.next(step, models)
        weights = np.array(self.arms.weights) * len(self.arms.weights)
        return GlobalBatch([scaled(e, w) for e, w in zip(batch.examples, weights, strict=True)], batch.metrics)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def scaled(example: Example, weight: float) -> Example:
    prompt, *answers = example.segments
    return Example((prompt, *(replace(s, values={**s.values, "share": s.values["share"] * weight}) for s in answers)))


class Arms:
    """In the place of `Sampler`: arms drawn from the policy by systematic sampling, in a random order. Counts differ
    from their expectation by less than one, and over steps by less still, since the offsets are spread evenly."""

    def __init__(self, prompts: int = 4, samples: int = 16) -> None:
        self.prompts, self.samples, self.rounds = prompts, samples, 0

    def sample(self, policy: Trainee, extra_rounds: int = 0) -> tuple[list[Rollout], dict[str, float]]:
        share = probabilities(policy)
        generator = np.random.default_rng(self.rounds)
        self.rounds += 1
        count = self.prompts * self.samples
        places = (np.arange(count) + self.rounds * 0.6180339887 % 1) / count
        arms = np.minimum(np.searchsorted(share.cumsum(), places, side="right"), ARMS - 1)
        arms = generator.permutation(arms).reshape(self.prompts, self.samples)
        groups = [rollout(group.tolist(), share) for group in arms]
        return groups, {"reward": float(REWARDS[arms].mean())}

    def state(self) -> dict[str, Any]:
        return {"rounds": self.rounds}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.rounds = state["rounds"]


def converge(
    source: Source, objective: Objective, folder: Path, steps: int = 30, lr: float = 0.1,
    others: Mapping[str, Trainee] | None = None, eps: float = 1e-8,
) -> np.ndarray:  # fmt: skip
    """Through the loop, with a rate that falls to 0 -> the policy's probabilities (4,) at the end. Adam's ``eps`` of 1
    leaves nothing of its division: steps are as long as gradients, whose noise then has no part in where it ends."""
    schedule = {"kind": "cosine", "warmup": 0, "floor": 0.0}
    settings = {"lr": lr, "betas": (0.5, 0.9), "weight_decay": 0.0, "eps": eps, "schedule": schedule}
    optimizer = OptimizerConfig.model_validate(settings)
    policy = Trainee(decoder(), optimizer)
    config = LoopConfig(tensorboard=False, snapshot_seconds=1e9)
    Loop(config, {"policy": policy, **(others or {})}, source, objective, steps, folder, "bandit").run()
    return probabilities(policy)


# ---- closed forms ----------------------------------------------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.exp(logits - logits.max())
    return shares / shares.sum()


def reverse_kl(beta: float) -> np.ndarray:
    """argmax of E R - beta KL(pi || uniform): pi ~ exp(R / beta)."""
    return softmax(REWARDS / beta)


def forward_kl(beta: float) -> np.ndarray:
    """argmax of E R - beta KL(uniform || pi), which the gradient of k3 in the loss follows (SPEC J.3):
    pi_a = beta / 4 / (beta + b - R_a), with the b that makes them add up to 1."""
    low, high = REWARDS.max() - beta, REWARDS.max() + beta
    for _ in range(200):
        middle = (low + high) / 2
        total = (beta / ARMS / (beta + middle - REWARDS)).sum()
        low, high = (middle, high) if total > 1 else (low, middle)
    return beta / ARMS / (beta + middle - REWARDS)


def of_groups(
    beta: float, samples: int, advantages: Callable[[np.ndarray], np.ndarray] = group_advantages
) -> np.ndarray:
    """Where the advantage is any function of the group's rewards: pi ~ exp(E[A | arm] / beta), which is solved by
    iteration; the expectation is over all ways in which the other answers of the group can fall."""
    ways = [
        np.diff([-1, *bars, samples + ARMS - 2]) - 1
        for bars in itertools.combinations(range(samples + ARMS - 2), ARMS - 1)
    ]
    counts = np.array(ways)  # (W, 4) of the other answers
    log_ways = math.lgamma(samples) - np.vectorize(math.lgamma)(counts + 1.0).sum(1)
    table = np.array([[advantages(REWARDS[np.repeat(range(ARMS), c + (np.arange(ARMS) == a))])[_place(c, a)]
                       for a in range(ARMS)] for c in counts])  # fmt: skip
    shares = np.full(ARMS, 1 / ARMS)
    for _ in range(500):
        weight = np.exp(log_ways + counts @ np.log(shares))
        shares = np.sqrt(shares * softmax(weight @ table / beta))
        shares /= shares.sum()
    return shares


def _place(counts: np.ndarray, arm: int) -> int:
    """Of an answer of this arm among a group that is sorted by arm."""
    return int(counts[:arm].sum())
