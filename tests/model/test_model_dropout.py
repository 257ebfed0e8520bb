"""Dropout by token and place: its rate, its independence, and that nothing but the token decides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fledge.model.decoder import Decoder
from fledge.model.dropout import Dropout
from fledge.train.batch import Example, Segment, pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

TOKENS = torch.arange(4000)


def dropped(
    rate: float = 0.1, seed: int = 0, site: int = 3, tokens: torch.Tensor = TOKENS, width: int = 256
) -> torch.Tensor:
    return Dropout(rate, seed)(tokens).dropped(site, width).float()


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_rate(rate: float) -> None:
    mask = dropped(rate)
    deviation = math.sqrt(rate * (1 - rate) / mask.numel())
    assert abs(float(mask.mean()) - rate) < 5 * deviation
    for along in (0, 1):  # every token and every channel has its share
        spread = math.sqrt(rate * (1 - rate) / mask.shape[along])
        assert float((mask.mean(along) - rate).abs().max()) < 6 * spread


def test_neighbours_sites_and_seeds_are_independent() -> None:
    mask = dropped(0.5) - 0.5
    others = {
        "next token": mask.roll(1, 0), "next channel": mask.roll(1, 1), "128 channels on": mask.roll(128, 1),
        "next site": dropped(0.5, site=4) - 0.5, "next seed": dropped(0.5, seed=1) - 0.5,
        "next example": dropped(0.5, tokens=TOKENS + 0x1E3779B97F4A7C15) - 0.5,
    }  # fmt: skip
    for name, other in others.items():
        correlation = float((mask * other).mean()) * 4
        assert abs(correlation) < 5 / math.sqrt(mask.numel()), name
    pairs = mask[:, :-1] * mask[:, 1:]  # xor of neighbours: no pattern either
    assert abs(float((pairs[:-1] * pairs[1:]).mean()) * 16) < 5 / math.sqrt(mask.numel())


def test_kept_entries_are_scaled_and_the_mean_stays() -> None:
    x = torch.ones(4000, 64)
    out = Dropout(0.25, 0)(TOKENS)(x, 0)
    assert sorted(set(out.flatten().tolist())) == [0.0, pytest.approx(4 / 3)]
    assert float(out.mean()) == pytest.approx(1, abs=0.01)


def documents() -> list[Example]:
    generator = np.random.default_rng(0)
    made = []
    for number, length in enumerate((7, 12, 5, 20, 9)):
        root = Segment(generator.integers(0, 97, length).astype(np.int32), np.ones(length, np.float32))
        root.weight[0] = 0
        child = Segment(generator.integers(0, 97, 4).astype(np.int32), np.ones(4, np.float32), 0)
        made.append(Example((root, child), number=(3 << 32) | number))
    return made


def gradient(
    decoder: Decoder, batches: list[list[Example]], rate: float = 0.3, recompute: bool = False
) -> list[torch.Tensor]:
    trainee = Trainee(decoder, OptimizerConfig(lr=1.0), recompute=recompute)
    trainee.dropout = Dropout(rate, 7) if rate else None
    decoder.zero_grad(set_to_none=True)
    objective = Likelihood()
    denominators = objective.denominators([example for batch in batches for example in batch])
    for batch in batches:
        trainee.loss(pack(batch), objective, denominators)[0].backward()
    return [p.grad.clone() for p in decoder.parameters() if p.grad is not None]


def test_one_gradient_however_the_batch_is_cut(tiny_decoder: Decoder) -> None:
    examples = documents()
    whole = gradient(tiny_decoder, [examples])
    for batches in ([examples[:2], examples[2:]], [[e] for e in reversed(examples)]):
        for one, other in zip(whole, gradient(tiny_decoder, batches), strict=True):
            assert float((one - other).norm() / one.norm()) < 1e-5
    for one, other in zip(whole, gradient(tiny_decoder, [examples], recompute=True), strict=True):
        assert torch.equal(one, other)
    renumbered = [replace(example, number=example.number + 1) for example in examples]
    for other in (gradient(tiny_decoder, [renumbered]), gradient(tiny_decoder, [examples], rate=0)):
        assert any(float((a - b).norm() / a.norm()) > 0.01 for a, b in zip(whole, other, strict=True))


def test_only_the_loss_is_dropped_from(tiny_decoder: Decoder) -> None:
    batch = pack([single(np.arange(8), [0.0] + [1.0] * 7)])
    trainee = Trainee(tiny_decoder, OptimizerConfig(lr=1.0))
    before = trainee.logp(batch)
    trainee.dropout = Dropout(0.5, 0)
    assert torch.equal(trainee.logp(batch), before)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Dropout(1.0, 0)
