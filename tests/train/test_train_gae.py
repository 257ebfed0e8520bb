"""PPO's closed forms: SPEC J2, J3, J4 and J.2's formulas against literal ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fledge.train.advantages import adapted_kl, gae, kl_shaped, whiten
from fledge.train.losses import clipped_ratio, clipped_value


def test_rewards_with_the_kl_in_them() -> None:
    """SPEC J2."""
    rewards = kl_shaped(1.0, [-1.0, -0.5, -2.0], [-1.2, -0.4, -1.5], 0.04)
    assert rewards.tolist() == pytest.approx([-0.008, 0.004, 1.02])


def test_gae_example() -> None:
    """SPEC J3, and J.2 step 4 at lambda 1."""
    rewards, values = np.array([0.0, 0.0, 1.0]), np.array([0.2, 0.4, 0.6])
    advantages, returns = gae(rewards, values, bootstrap=0.0, gamma=1.0, lam=0.95)
    assert advantages.tolist() == pytest.approx([0.751, 0.58, 0.4])
    assert returns.tolist() == pytest.approx([0.951, 0.98, 1.0])
    advantages, returns = gae(rewards, values, bootstrap=0.0, gamma=1.0, lam=1.0)
    assert advantages.tolist() == pytest.approx([0.8, 0.6, 0.4])
    assert returns.tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_gae_is_the_sum_of_the_paper() -> None:
    """1506.02438, eq. 16: the sum over l of (gamma lambda)^l d_{t+l}, with what follows a cut answer."""
    generator = np.random.default_rng(0)
    rewards, values = generator.normal(size=7), generator.normal(size=7)
    gamma, lam, bootstrap = 0.97, 0.9, 0.7
    following = [*values[1:], bootstrap]
    deltas = [r + gamma * after - v for r, after, v in zip(rewards, following, values, strict=True)]
    literal = [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, 7)) for t in range(7)]
    advantages, returns = gae(rewards, values, bootstrap, gamma, lam)
    assert advantages == pytest.approx(literal)
    assert returns == pytest.approx(np.array(literal) + values)
    # lambda 1: the discounted rewards to come, and what follows the cut, less the value
    togo = [sum(gamma ** (k - t) * rewards[k] for k in range(t, 7)) + gamma ** (7 - t) * bootstrap for t in range(7)]
    assert gae(rewards, values, bootstrap, gamma, 1.0)[1] == pytest.approx(togo)


def test_gae_of_one_token() -> None:
    advantages, returns = gae(np.array([2.0]), np.array([0.5]), 0.0, 1.0, 0.95)
    assert (advantages.tolist(), returns.tolist()) == ([1.5], [2.0])


def test_ratio_cases() -> None:
    """SPEC J4: what is maximised, (ratio, A) -> min(ratio A, clip A)."""
    cases = {(1.5, 1.0): 1.2, (1.5, -1.0): -1.5, (0.5, 1.0): 0.5, (0.5, -1.0): -0.8}
    for (ratio, advantage), want in cases.items():
        loss = clipped_ratio(torch.tensor(ratio).log(), torch.tensor(0.0), torch.tensor(advantage), 0.2, 0.2)
        assert float(-loss) == pytest.approx(want)


def test_value_loss() -> None:
    """SPEC J4: V .9, V_old .5, return 1, clip .15 -> held at .65 -> .06125."""
    value, old, returns = (torch.tensor([x], dtype=torch.float64) for x in (0.9, 0.5, 1.0))
    assert float(clipped_value(value, old, returns, 0.15)) == pytest.approx(0.06125)


@pytest.mark.parametrize(
    ("value", "old", "returns", "want"),
    [
        (0.9, 0.5, 1.0, 0.0),  # moved beyond the clip, and towards the return: nothing more to gain
        (0.6, 0.5, 1.0, -0.4),  # within the clip: V - R
        (0.1, 0.5, 1.0, -0.9),  # beyond, and away from the return: it is pulled back
        (1.4, 1.0, 1.1, 0.3),  # beyond, and past the return by more than the held value
    ],
)
def test_gradient_of_the_value_loss(value: float, old: float, returns: float, want: float) -> None:
    v = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    clipped_value(v, torch.tensor([old]).double(), torch.tensor([returns]).double(), 0.15).sum().backward()
    assert v.grad is not None
    assert float(v.grad) == pytest.approx(want)


def test_whitening_counts_trained_tokens_only() -> None:
    """Answers of 1 and 3 tokens: every token counts once, whatever its answer's length."""
    flat = np.concatenate([np.array([4.0]), np.array([0.0, 1.0, 3.0])])
    white = whiten(flat)
    assert white.mean() == pytest.approx(0.0, abs=1e-12)
    assert white.std() == pytest.approx(1.0, abs=1e-6)
    assert (whiten(np.full(3, 2.5)) == 0).all()


def test_adaptive_kl() -> None:
    """Ziegler et al.: the error is held within 20 %, a rollout counts for samples / horizon."""
    assert adapted_kl(0.04, measured=6.3, target=6.0, samples=100, horizon=1000) == pytest.approx(0.04 * 1.005)
    assert adapted_kl(0.04, measured=60.0, target=6.0, samples=100, horizon=1000) == pytest.approx(0.04 * 1.02)
    assert adapted_kl(0.04, measured=-1.0, target=6.0, samples=100, horizon=1000) == pytest.approx(0.04 * 0.98)
