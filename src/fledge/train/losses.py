"""Every loss as a pure function of log-probabilities, side by side, each with its paper and equation.

Shapes: P pairs, M trained tokens. Nothing here knows models or batches.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

DpoLoss = Literal[
    "sigmoid", "hinge", "cdpo", "rdpo", "ipo", "exo", "discopop", "nca", "bco", "sppo", "apo_zero", "apo_down"
]
SMOOTHED: tuple[DpoLoss, ...] = ("cdpo", "rdpo", "exo")  # losses that take pairs to be the wrong way round
KlEstimator = Literal["k1", "k2", "k3"]


def dpo(chosen: Tensor, rejected: Tensor, beta: float, loss: DpoLoss = "sigmoid", smoothing: float = 0.0) -> Tensor:
    """Loss of each pair (P,).

    ``chosen`` and ``rejected`` are c = ln pi(y+) - ln ref(y+) and r, the same of y-: sums over the answer's tokens with
    its end token; for ``ipo`` (and for a length-normalised sigmoid) means. D = c - r, s the logistic function, e the
    ``smoothing``.

    - sigmoid: -ln s(bD)  (Rafailov et al. 2023, 2305.18290, eq. 7)
    - cdpo: label smoothing, (1-e)·(-ln s(bD)) + e·(-ln s(-bD))  (Mitchell 2023)
    - rdpo: [(1-e)(-ln s(bD)) - e(-ln s(-bD))] / (1-2e)  (Chowdhury et al. 2024, 2403.00409)
    - ipo: (D - 1/(2b))^2  (Azar et al. 2023, 2310.12036, eq. 17)
    - hinge: max(0, 1 - bD)  (Zhao et al. 2023, 2305.10425, on log-ratios)
    - exo: KL of (s(bD), s(-bD)) from (1-e, e)  (Ji et al. 2024, 2402.00856, eq. 16)
    - discopop: -ln s(bD) and exp(-bD), mixed by s(bD/.05)  (Lu et al. 2024, 2406.08414, eq. 5)

    and those in which the sides count apart, so that y+ is kept from falling:

    - nca: -ln s(bc) - ln s(-bc)/2 - ln s(-br)/2  (Chen et al. 2024, 2402.05369)
    - bco: -ln s(bc) - ln s(-br), with a shift of 0  (Jung et al. 2024, 2404.04656)
    - sppo: (c - 1/(2b))^2 + (r + 1/(2b))^2  (Wu et al. 2024, 2405.00675, eq. 4.7 with hard labels)
    - apo_zero: 1 - s(bc) + s(br); apo_down: s(bc) + 1 - s(bD)  (D'Oosterlinck et al. 2024, 2408.06266, eq. 7, 8)
    """
    margin, c, r = beta * (chosen - rejected), beta * chosen, beta * rejected
    if loss == "cdpo":
        return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
    if loss == "rdpo":
        return (-(1 - smoothing) * F.logsigmoid(margin) + smoothing * F.logsigmoid(-margin)) / (1 - 2 * smoothing)
    if loss == "ipo":
        return (chosen - rejected - 1 / (2 * beta)).square()
    if loss == "hinge":
        return torch.relu(1 - margin)
    if loss == "exo":
        better = margin.sigmoid() * (F.logsigmoid(margin) - math.log(1 - smoothing))
        return better + (-margin).sigmoid() * (F.logsigmoid(-margin) - math.log(smoothing))
    if loss == "discopop":
        mixed = (margin / 0.05).sigmoid()
        return -(1 - mixed) * F.logsigmoid(margin) + mixed * (-margin).exp()
    if loss == "nca":
        return -F.logsigmoid(c) - (F.logsigmoid(-c) + F.logsigmoid(-r)) / 2
    if loss == "bco":
        return -F.logsigmoid(c) - F.logsigmoid(-r)
    if loss == "sppo":
        return (chosen - 1 / (2 * beta)).square() + (rejected + 1 / (2 * beta)).square()
    if loss == "apo_zero":
        return 1 - c.sigmoid() + r.sigmoid()
    if loss == "apo_down":
        return c.sigmoid() + 1 - margin.sigmoid()
    return -F.logsigmoid(margin)


def bradley_terry(better: Tensor, worse: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """Loss of each pair (P,): -ln s(r+ - r- - m), rewards of both answers and how much better one must be.

    Bradley and Terry 1952, as InstructGPT trains reward models (2203.02155, eq. 1); the margin is Llama 2's
    (2307.09288, eq. 2).
    """
    return -F.logsigmoid(better - worse - margin)


def centring(better: Tensor, worse: Tensor) -> Tensor:
    """(P,): (r+ + r-)², which holds rewards about 0 (Eisenstein et al. 2023, 2312.09244); times a small c, as .01."""
    return (better + worse).square()


def clipped_ratio(logp: Tensor, old_logp: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Loss of each token (M,): -min(r·A, clip(r, 1-low, 1+high)·A), r = exp(logp - old_logp).

    PPO (1707.06347, eq. 7); GRPO (2402.03300, eq. 3) with low = high; DAPO (2503.14476, eq. 10) with high > low.
    """
    ratio = torch.exp(logp - old_logp)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def truncated_weight(old_logp: Tensor, engine_logp: Tensor, cap: float) -> Tensor:
    """min(exp(old - engine), cap), without gradient: corrects for answers that an engine of other rounding sampled, at
    bounded variance (truncated importance sampling, Ionides 2008; for engine against trainer, Yao et al. 2025)."""
    return torch.exp(old_logp - engine_logp).clamp(max=cap).detach()


def clipped_value(value: Tensor, old_value: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Loss of each token (M,): max((V - R)², (V' - R)²) / 2, V' = V held within ``clip`` of what it was at sampling.

    The value's counterpart of PPO's clip (OpenAI's baselines, which the paper leaves out); Qwen1: clip .15
    (2309.16609, §3.2.2). Where V' is farther from R than V, its gradient is that of a constant.
    """
    held = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum((value - returns).square(), (held - returns).square()) / 2


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
