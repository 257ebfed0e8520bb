"""The objective of the family against literal formulas, and what is logged of ratios (SPEC J.6, N: J4, J8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.stages.grpo import METHODS, Config, Grpo, Variant, with_advantages
from fledge.train.batch import Example, PackedBatch, Segment, pack
from fledge.train.losses import truncated_weight
from fledge.train.objective import Terms

LENGTHS = (3, 1, 2)
ADVANTAGES = np.array([1.0, -0.5, 2.0])


class Given:
    """Log-probabilities that are there already, in the place of `Outputs`."""

    def __init__(self, logp: torch.Tensor) -> None:
        self.given = logp

    def logp_and_entropy(self, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        return self.given, torch.zeros_like(self.given)


def group(variant: Variant, columns: dict[str, np.ndarray], tool: int | None = None) -> list[Example]:
    """One prompt with three answers; ``tool``: the token of the first answer that a tool said."""
    parts = {name: np.split(column.astype(np.float32), np.cumsum(LENGTHS)[:-1]) for name, column in columns.items()}
    answers = []
    for place, length in enumerate(LENGTHS):
        weight = np.ones(length, np.float32)
        if tool is not None and place == 0:
            weight[tool] = 0
        own = {name: part[place] for name, part in parts.items()}
        answers.append(Segment(np.arange(length, dtype=np.int32), weight, 0, own))
    sampled = float(sum(int(a.weight.sum()) for a in answers))
    prompt = Segment(np.zeros(2, np.int32), np.zeros(2, np.float32), values={"samples": 3.0, "sampled": sampled})
    return [with_advantages(Example((prompt, *answers)), ADVANTAGES, METHODS[variant])]


def terms(objective: Grpo, examples: list[Example], logp: torch.Tensor) -> tuple[torch.Tensor, Terms, PackedBatch]:
    batch = pack(examples)
    result = objective.terms(batch, Given(logp), "policy")  # type: ignore[arg-type]
    return result.sums["policy"] / objective.denominators(examples)["policy"], result, batch


def literal(variant: Variant, logp: torch.Tensor, old: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The formulas of SPEC J.4-J.6, answer by answer."""
    total = torch.zeros(())
    for answer, before, advantage in zip(logp.split(LENGTHS), old.split(LENGTHS), ADVANTAGES.tolist(), strict=True):
        difference = answer - before
        if variant in ("grpo", "dr_grpo", "dapo"):
            ratio = difference.exp()
        else:
            ratio = (difference.mean() if variant == "gspo" else difference.sum()).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
        total = total - (gain.sum() if variant in ("dr_grpo", "dapo") else gain.mean())
    return total / {"dapo": 6, "dr_grpo": 3 * 10}.get(variant, 3)


@pytest.mark.parametrize("variant", METHODS)
def test_loss_and_gradient_are_those_of_the_literal_formula(variant: Variant) -> None:
    generator = torch.Generator().manual_seed(0)
    logp = (torch.randn(6, generator=generator, dtype=torch.float64) * 0.2 - 2).float().requires_grad_()
    old = torch.randn(6, generator=generator) * 0.2 - 2
    objective = Grpo(variant, 0.1, 0.15, max_new_tokens=10, on_policy=False)
    loss, _, _ = terms(objective, group(variant, {"old": old.numpy(), "engine": old.numpy()}), logp)
    want = literal(variant, logp, old, 0.1, 0.15)
    (grad,) = torch.autograd.grad(loss, logp)
    (want_grad,) = torch.autograd.grad(want, logp)
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(grad, want_grad)
    assert grad.abs().sum() > 0


def test_on_policy_all_are_reinforce() -> None:
    """With one update the gradient of an answer is its advantage times that of its log-probability, however clipped."""
    logp = torch.linspace(-3, -1, 6).requires_grad_()
    weights = {"grpo": [1 / 9] * 3 + [1 / 3] + [1 / 6] * 2, "gspo": [1 / 9] * 3 + [1 / 3] + [1 / 6] * 2,
               "rloo": [1 / 3] * 6, "reinforce": [1 / 3] * 6, "dapo": [1 / 6] * 6, "dr_grpo": [1 / 30] * 6}  # fmt: skip
    for variant in METHODS:
        loss, _, _ = terms(Grpo(variant, 1e-9, 1e-9, max_new_tokens=10), group(variant, {}), logp)
        (grad,) = torch.autograd.grad(loss, logp)
        want = -torch.tensor(weights[variant]) * torch.tensor(np.repeat(ADVANTAGES, LENGTHS), dtype=torch.float32)
        torch.testing.assert_close(grad, want)


def test_the_ratio_of_gspo() -> None:
    """SPEC N, J8: log-ratios [.1, -.05, .2] -> 1.086904."""
    old = np.zeros(6)
    logp = torch.tensor([0.1, -0.05, 0.2, 0, 0, 0])
    _, result, _ = terms(Grpo("gspo", 0.2, 0.2, on_policy=False), group("gspo", {"old": old}), logp)
    total, count = result.metrics["ratio"]
    assert (float(total) - 3) / 3 == pytest.approx(1.086904, abs=1e-6)
    assert count == 6


def test_what_a_tool_said_is_in_no_mean() -> None:
    """The second token of the first answer is a tool's: neither trained on, nor in the mean of GSPO's ratio."""
    examples = group("gspo", {"old": np.zeros(6)}, tool=1)
    logp = torch.tensor([0.1, 0.2, 0, 0, 0]).requires_grad_()  # of the five tokens that are trained on
    _, result, batch = terms(Grpo("gspo", 0.2, 0.2, on_policy=False), examples, logp)
    assert len(batch.trained) == 5
    assert float(result.metrics["ratio"][0]) == pytest.approx(2 * np.exp(0.15) + 3, abs=1e-6)


def test_importance_weights_and_their_histogram() -> None:
    """min(exp(trainer - engine), cap), of a token or, where the ratio is an answer's, of the answer; without gradient.
    The log-ratio is counted in bins that add up to 1."""
    gap = np.array([0.0, 0.05, -0.05, 3.0, -0.5, 0.0005])
    logp = torch.full((6,), -2.0, requires_grad=True)
    examples = group("grpo", {"engine": -2.0 - gap})
    loss, result, _ = terms(Grpo("grpo", 0.2, 0.2, importance_cap=2.0), examples, logp)
    (grad,) = torch.autograd.grad(loss, logp)
    weight = np.minimum(np.exp(gap), 2.0)
    share = np.repeat(1 / np.array(LENGTHS), LENGTHS) / 3
    want = -weight * share * np.repeat(ADVANTAGES, LENGTHS)
    np.testing.assert_allclose(grad.numpy(), want, rtol=1e-5)
    bins = {name: float(value[0]) for name, value in result.metrics.items() if "_bin_" in name}
    assert list(bins.values()) == [0, 1, 1, 0, 2, 0, 1, 0, 1]
    assert list(bins)[:2] == ["log_ratio_bin_-inf", "log_ratio_bin_-1.0"]
    whole, _, _ = terms(Grpo("rloo", 0.2, 0.2, importance_cap=2.0), group("rloo", {"engine": -2.0 - gap}), logp)
    (grad,) = torch.autograd.grad(whole, logp)
    first = 1.0  # exp(0 + .05 - .05)
    np.testing.assert_allclose(grad[:3].numpy(), -first * ADVANTAGES[0] / 3 * np.ones(3), rtol=1e-5)
    assert not truncated_weight(logp, logp * 0.5, 2.0).requires_grad


def test_steps_count_beside_the_answer() -> None:
    """Process rewards: the column ``step_advantage`` is added to each token's advantage."""
    logp = torch.full((6,), -2.0, requires_grad=True)
    examples = group("dapo", {"step_advantage": np.array([1.0, 1, 0, 0, 0, -4])})
    loss, _, _ = terms(Grpo("dapo", 0.2, 0.28), examples, logp)
    (grad,) = torch.autograd.grad(loss, logp)
    np.testing.assert_allclose(grad.numpy(), -np.array([2, 2, 1, -0.5, 2, -2]) / 6, rtol=1e-6)


def test_a_replayed_token_that_is_far_fetched_is_no_nan() -> None:
    """What is replayed beside the groups has no reference: e^100 times 0 must not reach the loss."""
    examples = group("grpo", {"reference": np.full(6, -2.0)})
    replayed = Segment(np.arange(3, dtype=np.int32), np.array([0, 1, 1], np.float32), values={"replay": 1.0})
    logp = torch.tensor([-2.0] * 6 + [-100.0, -1.0], requires_grad=True)
    loss, result, _ = terms(Grpo("grpo", 0.2, 0.2, 0.1), [*examples, Example((replayed,))], logp)
    (grad,) = torch.autograd.grad(loss, logp)
    assert grad.isfinite().all()
    assert grad[6:].tolist() == [0, 0]
    assert float(result.metrics["kl"][0]) == 0


def test_nothing_usable_is_a_step_without_a_gradient() -> None:
    """All answers were left out: the denominator is 1, not 0."""
    prompt = Segment(np.zeros(2, np.int32), np.zeros(2, np.float32), values={"samples": 0.0, "sampled": 0.0})
    for variant in METHODS:
        assert Grpo(variant, 0.2, 0.2).denominators([Example((prompt,))])["policy"] >= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"updates": 3}, "must be a multiple of updates=3"),
        ({"rollout": {"samples": 1}}, "rollout.samples must be at least 2"),
        ({"variant": "rloo", "scale_rewards": True}, "no deviation of a group"),
        ({"variant": "rloo", "kl": "k3"}, "only k1 is unbiased"),
        ({"overlong_buffer": 200, "rollout": {"max_new_tokens": 128}}, "every answer would be punished"),
        ({"clip_high": -0.5}, "clip_high"),
        ({"variant": "gspo", "process": {"function": "a:b"}}, "process rewards need one a token"),
    ],
)
def test_what_makes_no_sense_together_is_refused(values: dict[str, Any], message: str) -> None:
    settings = {"model": ".", "tasks": ["."], "optimizer": {"lr": 1}}
    with pytest.raises(ConfigError, match=message):
        build(Config, {**settings, **values})
    build(Config, {**settings, "variant": "reinforce", "rollout": {"samples": 1}})


@pytest.mark.parametrize(
    ("values", "clip"),
    [({}, (0.2, 0.2)), ({"variant": "dapo"}, (0.2, 0.28)), ({"variant": "gspo"}, (3e-4, 4e-4)),
     ({"clip_low": 0.1}, (0.1, 0.1)), ({"variant": "dapo", "clip_low": 0.1}, (0.1, 0.28))],
)  # fmt: skip
def test_clips_by_default(values: dict[str, Any], clip: tuple[float, float]) -> None:
    config = build(Config, {"model": ".", "tasks": ["."], "optimizer": {"lr": 1}, **values})
    assert (config.low, config.high) == clip
