"""From rewards to advantages: pure functions of numbers, side by side, each with its paper and equation.

Shapes: G answers of one prompt, T tokens of one answer. Float64 throughout; nothing here knows models or batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Deviation = Literal["sample", "population"]


def group_advantages(
    rewards: npt.ArrayLike, scale: bool = True, deviation: Deviation = "sample", epsilon: float = 1e-4
) -> Floats:
    """rewards (G,) -> (G,): r - mean, over the group's deviation + epsilon if ``scale``.

    GRPO scales (2402.03300, section 4.1.2, which does not say by which deviation; ``sample`` is trl's); Dr. GRPO does
    not (2503.20783). A group of one, or one in which all are equal, gets zeros.
    """
    values = np.asarray(rewards, np.float64)
    if len(values) < 2 or values.max() == values.min():  # not left to rounding of the mean
        return np.zeros(len(values))
    centred = values - values.mean()
    return centred / (values.std(ddof=1 if deviation == "sample" else 0) + epsilon) if scale else centred


def leave_one_out(rewards: npt.ArrayLike) -> Floats:
    """rewards (G,), G >= 2 -> (G,): r_i minus the mean of the others (RLOO: Ahmadian et al. 2024, 2402.14740, eq. 8).

    Unbiased, since the baseline does not depend on the answer; group_advantages without scale times G / (G - 1).
    """
    values = np.asarray(rewards, np.float64)
    if len(values) < 2:
        raise ValueError(f"a baseline of the other answers needs at least 2 rewards, not {len(values)}")
    if values.max() == values.min():
        return np.zeros(len(values))
    return values - (values.sum() - values) / (len(values) - 1)


def kl_shaped(reward: float, logp: npt.ArrayLike, reference: npt.ArrayLike, beta: float) -> Floats:
    """Reward of each token (T,): -beta (ln pi - ln ref), and the answer's ``reward`` at its last (SPEC J.2, step 3).

    The estimator is k1, the unbiased one where nothing is differentiated (SPEC J.3). The sum is the reward of an answer
    as a whole, which is what RLOO and REINFORCE use.
    """
    rewards = -beta * (np.asarray(logp, np.float64) - np.asarray(reference, np.float64))
    rewards[-1] += reward
    return rewards


def gae(rewards: Floats, values: Floats, bootstrap: float, gamma: float, lam: float) -> tuple[Floats, Floats]:
    """Advantages and returns of an answer, both (T,): A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t;
    A + V.

    Generalised advantage estimation (1506.02438, eq. 16). ``values``: of the state before each token; ``bootstrap``: of
    the state after the last, 0 where the answer has ended.
    """
    deltas = rewards + gamma * np.append(values[1:], bootstrap) - values
    advantages = np.empty_like(deltas)
    later = 0.0
    for t in range(len(deltas) - 1, -1, -1):
        later = deltas[t] + gamma * lam * later
        advantages[t] = later
    return advantages, advantages + values


def adapted_kl(beta: float, measured: float, target: float, samples: int, horizon: float) -> float:
    """The coefficient after a rollout of so many answers, whose mean KL (nats an answer) was ``measured``:
    beta (1 + clip(KL / target - 1, -.2, .2) samples / horizon)  (Ziegler et al. 2019, 1909.08593, section 2.2)."""
    error = min(0.2, max(-0.2, measured / target - 1))
    return beta * (1 + error * samples / horizon)


def process_advantages(steps: Sequence[npt.ArrayLike], scale: bool = True, epsilon: float = 1e-4) -> list[Floats]:
    """Rewards of the steps of each of G answers -> the advantage of each step: the sum of the normalised rewards of
    this step and the later ones (process supervision, 2402.03300, section 4.1.3).

    Normalised over all steps of the group together, as `group_advantages` does over answers.
    """
    arrays = [np.asarray(rewards, np.float64) for rewards in steps]
    flat = group_advantages(np.concatenate(arrays) if arrays else [], scale, epsilon=epsilon)
    parts = np.split(flat, np.cumsum([len(rewards) for rewards in arrays])[:-1]) if arrays else []
    return [part[::-1].cumsum()[::-1] for part in parts]


def whiten(values: npt.ArrayLike, centre: bool = True, epsilon: float = 1e-8) -> Floats:
    """values (N,) -> (N,) with deviation 1 (of the population) and, if ``centre``, mean 0. Give it the trained tokens
    of the whole rollout only: what is masked out must not count."""
    array = np.asarray(values, np.float64)
    if not len(array):
        return array
    mean = array.mean()
    scaled = (array - mean) / np.sqrt(array.var() + epsilon)
    return scaled if centre else scaled + mean


def overlong_penalty(length: int, limit: int, buffer: int) -> float:
    """DAPO's soft punishment (2503.14476, eq. 13): 0 up to limit - buffer, then linear to -1 at the limit, -1 above."""
    start = limit - buffer
    if length <= start:
        return 0.0
    return -1.0 if length > limit else (start - length) / buffer


class RunningMean:
    """Mean and deviation of all that was ever added, or, with ``decay`` d in (0, 1), with weight d for what was
    there before each addition. State of a run (Qwen1 normalises rewards by a running mean, SPEC J.2)."""

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = decay
        self.weight = self.mean = self.square = 0.0  # square: weighted sum of squared distances from the mean

    def add(self, values: npt.ArrayLike) -> None:
        """Welford's update for a batch (Chan et al. 1979)."""
        array = np.asarray(values, np.float64)
        if not len(array):
            return
        old = self.weight * self.decay
        self.weight = old + len(array)
        shift = float(array.mean()) - self.mean
        self.square = self.square * self.decay + float(array.var()) * len(array)
        self.square += shift * shift * old * len(array) / self.weight
        self.mean += shift * len(array) / self.weight

    @property
    def deviation(self) -> float:
        """Of the population; 0 before anything was added."""
        return float(np.sqrt(self.square / self.weight)) if self.weight else 0.0

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight, "mean": self.mean, "square": self.square}

    def load_state(self, state: dict[str, Any]) -> None:
        self.weight, self.mean, self.square = state["weight"], state["mean"], state["square"]
