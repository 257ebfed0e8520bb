"""Penalty, temperature, top-k, top-p and the draw, each against its definition or transformers'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fledge.generate.sampling import Rules, Sampling, best, candidates, draw, invert, penalise, uniforms


def logits(rows: int = 40, vocabulary: int = 700, scale: float = 2.5, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def rules(rows: int, **sampling: float) -> Rules:
    return Rules.of([Sampling.model_validate(sampling)] * rows)


def kept(x: torch.Tensor, top_k: int, top_p: float) -> list[set[int]]:
    rows = len(x)
    probabilities, tokens = candidates(x, torch.full((rows,), top_k), torch.full((rows,), top_p))
    return [set(t[p > 0].tolist()) for p, t in zip(probabilities, tokens, strict=True)]


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.8, 0.95, 0.9999])
@pytest.mark.parametrize("scale", [0.3, 2.5])
def test_top_p_keeps_the_smallest_set(top_p: float, scale: float) -> None:
    x = logits(scale=scale)
    probabilities = x.double().softmax(-1)
    for row, tokens in zip(probabilities, kept(x, 0, top_p), strict=True):
        inside = row[sorted(tokens)]
        outside = row[[t for t in range(len(row)) if t not in tokens]]
        assert inside.sum() >= top_p - 1e-6  # enough,
        assert len(inside) == 1 or inside.sum() - inside.min() < top_p + 1e-6  # not one too many,
        assert len(outside) == 0 or inside.min() >= outside.max()  # and the most probable


@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (20, 1.0), (300, 1.0), (5000, 1.0), (20, 0.8), (300, 0.5)])
def test_filters_equal_transformers(top_k: int, top_p: float) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    x = logits()
    expected = process.TopKLogitsWarper(top_k)(None, x.clone())
    if top_p < 1:
        expected = process.TopPLogitsWarper(top_p)(None, expected)
    assert kept(x, top_k, top_p) == [set(torch.isfinite(row).nonzero()[:, 0].tolist()) for row in expected]


def test_repetition_penalty_equals_transformers() -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    x = logits()
    past = torch.randint(0, 700, (40, 30), generator=torch.Generator().manual_seed(1))
    seen = torch.zeros(40, 700, dtype=torch.bool).scatter(1, past, True)
    expected = process.RepetitionPenaltyLogitsProcessor(1.3)(past, x.clone())
    torch.testing.assert_close(penalise(x, seen, torch.full((40, 1), 1.3)), expected)


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 0.5}, {"top_k": 6}, {"top_p": 0.7}, {"temperature": 2.0, "top_k": 8, "top_p": 0.9}],
)
def test_drawn_tokens_follow_the_distribution(sampling: dict[str, float]) -> None:
    """Chi-square over 20,000 draws against the exact probabilities."""
    count, vocabulary = 20_000, 12
    x = logits(1, vocabulary, scale=1.0)
    expected = (x[0].double() / sampling.get("temperature", 1.0)).softmax(-1)
    order = expected.argsort(descending=True)
    if "top_k" in sampling:
        expected[order[int(sampling["top_k"]) :]] = 0
        expected /= expected.sum()
    if "top_p" in sampling:
        before = expected[order].cumsum(0) - expected[order]
        expected[order[before >= sampling["top_p"]]] = 0
        expected /= expected.sum()
    uniform = torch.from_numpy(uniforms(3, 0, count))
    got = draw(x.expand(count, -1), rules(count, **sampling), uniform)
    counts = torch.bincount(got.tokens, minlength=vocabulary).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = ((counts - count * expected)[possible] ** 2 / (count * expected)[possible]).sum().item()
    degrees = int(possible.sum()) - 1
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5 + 4
    torch.testing.assert_close(got.logp.double(), expected[got.tokens].log(), atol=1e-5, rtol=0)


def test_rows_with_different_rules_do_not_touch_each_other() -> None:
    kinds = [
        Sampling(temperature=0), Sampling(), Sampling(temperature=0.6), Sampling(top_k=3), Sampling(top_p=0.9),
        Sampling(top_p=0.99999), Sampling(repetition_penalty=1.5), Sampling(top_k=300, top_p=0.8, temperature=1.7),
    ]  # fmt: skip
    x = logits(len(kinds), scale=0.5)
    uniform = torch.from_numpy(uniforms(0, 0, len(kinds)))
    seen = x > 0.5
    together = draw(x, Rules.of(kinds), uniform, seen)
    for i, kind in enumerate(kinds):
        alone = draw(x[i : i + 1], Rules.of([kind]), uniform[i : i + 1], seen[i : i + 1])
        assert alone.tokens[0] == together.tokens[i]
        torch.testing.assert_close(alone.logp[0], together.logp[i])
        torch.testing.assert_close(alone.model_logp[0], together.model_logp[i])


def test_greedy_takes_the_best_and_is_certain() -> None:
    x = logits()
    got = draw(x, rules(40, temperature=0), torch.zeros(40))
    assert torch.equal(got.tokens, x.argmax(-1))
    assert (got.logp == 0).all()
    torch.testing.assert_close(got.model_logp, x.log_softmax(-1).amax(-1))


def test_inversion_never_takes_what_has_no_probability() -> None:
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).expand(5, -1)
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2.0**-24])
    assert invert(probabilities, uniform).tolist() == [1, 1, 3, 3, 3]


@pytest.mark.parametrize("size", [512, 700, 8192])
def test_long_rows_by_blocks_are_the_rows(size: int) -> None:
    """Every place has its share of the numbers, across the borders of blocks and in a last one that is short."""
    shares = torch.rand(1, size, generator=torch.Generator().manual_seed(3)).double()
    shares[0, ::3] = 0
    shares[0, 128:256] = 0  # a block of nothing
    running = shares.cumsum(-1)[0] / shares.sum()
    # numbers in the middle of each place's range, so that float32 decides as float64 does
    middle = ((running + torch.cat([running.new_zeros(1), running[:-1]])) / 2)[shares[0] > 0]
    got = invert(shares.float().expand(len(middle), -1), middle.float())
    wrong = (got != (shares[0] > 0).nonzero()[:, 0]).sum()
    assert wrong <= size // 500  # a place narrower than float32 tells apart may give way to its neighbour
    assert (shares[0][got] > 0).all()
    ends = invert(shares.float().expand(2, -1), torch.tensor([0.0, 1 - 2.0**-24]))
    assert ends[0] == 1
    assert shares[0, ends[1]] > 0


@pytest.mark.parametrize("size", [40, 512, 700, 8192])
def test_best_is_the_first_of_the_largest(size: int) -> None:
    x = logits(30, size)
    x[7, size // 2 :] = x[7].max() + 1  # many that are equal
    x[8, -1] = x[8].max() + 1
    x[9] = -x[9].abs() - 100
    assert torch.equal(best(x), x.argmax(-1))


def test_streams_are_of_their_own_and_begin_alike() -> None:
    assert np.array_equal(uniforms(1, 2, 10), uniforms(1, 2, 50)[:10])  # however many tokens may follow
    starts = {tuple(uniforms(s, i, 3).tolist()) for s in range(20) for i in range(20)}
    assert len(starts) == 400
    many = uniforms(0, 0, 100_000)
    assert many.min() >= 0
    assert many.max() < 1


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"topk": 3}])
def test_impossible_sampling_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(wrong)
