"""Losses against the numbers of SPEC N (I1, J5, J6, J7), literal formulas, and trl."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fledge.train.losses import clipped_ratio, dpo, group_advantages, kl, overlong_penalty
from fledge.train.schedule import ScheduleConfig, factor

MARGIN = torch.tensor([math.log(0.6 / 0.5) - math.log(0.2 / 0.4)], dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "smoothing", "want"),
    [("sigmoid", 0, 0.650331), ("cdpo", 0.1, 0.659086), ("rdpo", 0.1, 0.639388), ("ipo", 0, 17.01176)],
)
def test_dpo_family(loss: str, smoothing: float, want: float) -> None:
    assert float(dpo(MARGIN, 0.1, loss, smoothing)) == pytest.approx(want, abs=1e-5)  # type: ignore[arg-type]


def test_dpo_gradient_weight_and_start() -> None:
    margin = MARGIN.clone().requires_grad_()
    dpo(margin, 0.1).sum().backward()
    assert float(-margin.grad / 0.1) == pytest.approx(0.478127, abs=1e-6)  # type: ignore[operator]
    assert float(dpo(torch.zeros(1), 0.1)) == pytest.approx(math.log(2))


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


def test_group_advantages() -> None:
    """SPEC J.5, sample deviation: [1,0,0,1] -> .86588; [1,0,0,0] -> 1.49970, -.49990; equal rewards -> 0."""
    scaled = group_advantages(torch.tensor([[1.0, 0, 0, 1], [1.0, 0, 0, 0], [1.0, 1, 1, 1]], dtype=torch.float64))
    assert scaled[0].tolist() == pytest.approx([0.86588, -0.86588, -0.86588, 0.86588], abs=2e-5)
    assert scaled[1].tolist() == pytest.approx([1.49970, -0.49990, -0.49990, -0.49990], abs=2e-5)
    assert scaled[2].tolist() == [0, 0, 0, 0]
    assert group_advantages(torch.tensor([[1.0, 0, 0, 1]]), scale=False).tolist() == [[0.5, -0.5, -0.5, 0.5]]


def test_overlong() -> None:
    lengths = (16_384, 17_408, 18_432, 20_480, 20_481)
    assert [overlong_penalty(n, 20_480, 4096) for n in lengths] == [0, -0.25, -0.5, -1, -1]


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
