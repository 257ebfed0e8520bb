"""Losses against the numbers of SPEC N (I1, J5, J6, J7), literal formulas, and trl."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch

from fledge.train.losses import SMOOTHED, DpoLoss, bradley_terry, centring, clipped_ratio, dpo, kl
from fledge.train.schedule import ScheduleConfig, factor

# pi .6 and .2, reference .5 and .4 for the better and the worse answer
CHOSEN, REJECTED = (torch.tensor([math.log(p / q)], dtype=torch.float64) for p, q in ((0.6, 0.5), (0.2, 0.4)))


@pytest.mark.parametrize(
    ("loss", "smoothing", "want"),
    [("sigmoid", 0, 0.650331), ("cdpo", 0.1, 0.659086), ("rdpo", 0.1, 0.639388), ("ipo", 0, 17.01176)],
)
def test_dpo_family(loss: str, smoothing: float, want: float) -> None:
    assert float(CHOSEN - REJECTED) == pytest.approx(0.875469, abs=1e-6)
    assert float(dpo(CHOSEN, REJECTED, 0.1, loss, smoothing)) == pytest.approx(want, abs=1e-5)  # type: ignore[arg-type]


def test_dpo_gradient_weight_and_start() -> None:
    chosen, rejected = (side.clone().requires_grad_() for side in (CHOSEN, REJECTED))
    dpo(chosen, rejected, 0.1).sum().backward()
    assert float(-chosen.grad / 0.1) == pytest.approx(0.478127, abs=1e-6)  # type: ignore[operator]
    assert float(rejected.grad) == -float(chosen.grad)  # type: ignore[arg-type]
    assert float(dpo(torch.zeros(1), torch.zeros(1), 0.1)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("loss", get_args(DpoLoss))
def test_dpo_gradients_are_those_of_finite_differences(loss: DpoLoss) -> None:
    generator = torch.Generator().manual_seed(4)
    sides = [torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    smoothing = 0.1 if loss in SMOOTHED else 0.0
    assert torch.autograd.gradcheck(lambda c, r: dpo(c, r, 0.7, loss, smoothing), sides)


def test_dpo_with_its_sides_swapped() -> None:
    """SPEC I.6: L(D) - L(-D) = -bD; cdpo at half is the mean of both."""
    difference = dpo(CHOSEN, REJECTED, 0.3) - dpo(REJECTED, CHOSEN, 0.3)
    torch.testing.assert_close(difference, -0.3 * (CHOSEN - REJECTED))
    mean = (dpo(CHOSEN, REJECTED, 0.3) + dpo(REJECTED, CHOSEN, 0.3)) / 2
    torch.testing.assert_close(dpo(CHOSEN, REJECTED, 0.3, "cdpo", 0.5), mean)


def test_bradley_terry() -> None:
    """SPEC J1: a gap of 1 -> .313262, of 0 -> .693147; a margin is taken off the gap; the gradient is -s(-gap)."""
    better, worse = torch.tensor([2.0, -3.0, 2.0], requires_grad=True), torch.tensor([1.0, -3.0, 1.0])
    loss = bradley_terry(better, worse, torch.tensor([0.0, 0.0, 1.0]))
    assert loss.tolist() == pytest.approx([0.313262, 0.693147, 0.693147], abs=1e-6)
    loss.sum().backward()
    assert better.grad is not None
    assert better.grad.tolist() == pytest.approx([-1 / (1 + math.e), -0.5, -0.5], abs=1e-6)
    assert centring(better, worse).tolist() == [9.0, 36.0, 9.0]


def test_kl_estimators() -> None:
    """SPEC J5: p = .8 against .5 at one token: k1 .223144 is ln(.5/.4) in the spec's example."""
    logp, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.4)])
    k1, k2, k3 = (float(kl(logp, reference, name)) for name in ("k1", "k2", "k3"))  # type: ignore[arg-type]
    assert (k1, k2, k3) == pytest.approx((0.223144, 0.024897, 0.023144), abs=1e-6)


def test_clip_cases() -> None:
    """SPEC J4 at clip .2: ratio 1.5 with A=1 -> 1.2; 1.5 with -1 -> -1.5; .5 with 1 -> .5; .5 with -1 -> -.8."""
    old = torch.zeros(4)
    logp = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    torch.testing.assert_close(-clipped_ratio(logp, old, advantage, 0.2, 0.2), torch.tensor([1.2, -1.5, 0.5, -0.8]))
    high = -clipped_ratio(logp, old, advantage, 0.2, 0.28)
    torch.testing.assert_close(high, torch.tensor([1.28, -1.5, 0.5, -0.8]))


def test_schedules() -> None:
    cosine = ScheduleConfig(kind="cosine", warmup=0, floor=0.1)
    assert 7e-6 * factor(cosine, 50, 101) == pytest.approx(3.85e-6)  # SPEC H1: the middle of 7e-6 .. 7e-7
    assert 7e-6 * factor(cosine, 100, 101) == pytest.approx(7e-7)
    warm = ScheduleConfig(kind="cosine", warmup=1430, floor=0.1)
    rates = [factor(warm, step, 4000) for step in range(4000)]
    assert rates.index(max(rates)) == 1430  # Qwen1's SFT: the peak at step 1430
    assert rates[1430] == 1.0
    wsd = ScheduleConfig(kind="wsd", warmup=0.1, decay=0.2, floor=0.0)
    rates = [factor(wsd, step, 100) for step in range(100)]
    assert rates[10:80] == [1.0] * 70
    assert rates[-1] == pytest.approx(0)
    assert all(a > b for a, b in itertools.pairwise(rates[79:]))
    linear = [factor(ScheduleConfig(kind="linear", warmup=0, floor=0.5), s, 3) for s in range(3)]
    assert linear == pytest.approx([1, 0.75, 0.5])
