"""Every loss as a pure function of log-probabilities, side by side, each with its paper and equation.

Shapes: P pairs, M trained tokens. Nothing here knows models or batches.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

DpoLoss = Literal["sigmoid", "cdpo", "rdpo", "ipo"]
KlEstimator = Literal["k1", "k2", "k3"]


def dpo(margin: Tensor, beta: float, loss: DpoLoss = "sigmoid", smoothing: float = 0.0) -> Tensor:
    """Loss of each pair (P,).

    ``margin`` is [ln pi(y+) - ln ref(y+)] - [ln pi(y-) - ln ref(y-)], sums over the answer's tokens with its end
    token; for ``ipo`` (and for a length-normalised sigmoid) means instead of sums.

    - sigmoid: Rafailov et al. 2023 (2305.18290), eq. 7
    - cdpo: label smoothing e, (1-e)·(-ln s(bD)) + e·(-ln s(-bD))  (Mitchell 2023)
    - rdpo: [(1-e)(-ln s(bD)) - e(-ln s(-bD))] / (1-2e)  (Chowdhury et al. 2024, 2403.00409)
    - ipo: (D - 1/(2b))^2  (Azar et al. 2023, 2310.12036, eq. 17)
    """
    z = beta * margin
    if loss == "sigmoid":
        return -F.logsigmoid(z)
    if loss == "cdpo":
        return -(1 - smoothing) * F.logsigmoid(z) - smoothing * F.logsigmoid(-z)
    if loss == "rdpo":
        return (-(1 - smoothing) * F.logsigmoid(z) + smoothing * F.logsigmoid(-z)) / (1 - 2 * smoothing)
    return (margin - 1 / (2 * beta)).square()


def clipped_ratio(logp: Tensor, old_logp: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Loss of each token (M,): -min(r·A, clip(r, 1-low, 1+high)·A), r = exp(logp - old_logp).

    PPO (1707.06347, eq. 7); GRPO (2402.03300, eq. 3) with low = high; DAPO (2503.14476, eq. 10) with high > low.
    """
    ratio = torch.exp(logp - old_logp)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def kl(logp: Tensor, reference: Tensor, estimator: KlEstimator = "k3") -> Tensor:
    """Estimate of KL(pi || ref) at each sampled token (M,), x = ln ref - ln pi (Schulman 2020).

    k1 = -x, k2 = x²/2, k3 = exp(x) - 1 - x (GRPO, 2402.03300, eq. 4: never negative).
    """
    x = reference - logp
    if estimator == "k1":
        return -x
    if estimator == "k2":
        return x.square() / 2
    return x.exp() - 1 - x


def group_advantages(rewards: Tensor, scale: bool = True, epsilon: float = 1e-4) -> Tensor:
    """rewards (Q, G) -> advantages (Q, G): r - mean, over the sample standard deviation if ``scale``.

    GRPO scales (2402.03300, §4.1; the sample deviation, as trl); Dr. GRPO does not (2503.20783). A group in which
    all are equal gets zeros.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    if not scale:
        return centred
    return centred / (rewards.std(1, keepdim=True) + epsilon)


def overlong_penalty(length: int, limit: int, buffer: int) -> float:
    """DAPO's soft punishment (2503.14476, eq. 13): 0 up to limit - buffer, then linear to -1 at the limit, -1 above."""
    start = limit - buffer
    if length <= start:
        return 0.0
    return -1.0 if length > limit else (start - length) / buffer
