"""The chunked head against the literal formula: values, gradients, and no (M, V) tensor in float32."""

from __future__ import annotations

import pytest
import torch

from fledge.train import head


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 31 * 4)  # chunks of 4 rows
    monkeypatch.setattr(head, "CHUNK_ROWS", 4)


def problem(rows: int = 11) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, 8, generator=generator, dtype=torch.float32).requires_grad_()
    weight = torch.randn(31, 8, generator=generator, dtype=torch.float32).requires_grad_()
    targets = torch.randint(0, 31, (rows,), generator=generator)
    a, b = torch.randn(2, rows, generator=generator)
    return hidden, weight, targets, a, b


ROWS = [11, 43]  # 43 are filled up to 44 where the processor computes in bf16 (core/shapes.py)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logp_and_entropy(temperature: float, rows: int) -> None:
    hidden, weight, targets, a, b = problem(rows)
    logp, entropy = head.token_logp(hidden, weight, targets, temperature)
    full = (hidden @ weight.T / temperature).log_softmax(-1)
    want = full.gather(1, targets[:, None])[:, 0]
    want_entropy = -(full.exp() * full).sum(-1)
    torch.testing.assert_close(logp, want)
    torch.testing.assert_close(entropy, want_entropy)
    for ours, literal in (
        ((logp * a).sum() + (entropy * b).sum(), (want * a).sum() + (want_entropy * b).sum()),
        ((logp * a).sum(), (want * a).sum()),
    ):
        got = torch.autograd.grad(ours, (hidden, weight), retain_graph=True)
        expected = torch.autograd.grad(literal, (hidden, weight), retain_graph=True)
        for x, y in zip(got, expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", ROWS)
def test_weighted_nll(rows: int) -> None:
    hidden, weight, targets, a, _ = problem(rows)
    loss, logp = head.weighted_nll(hidden, weight, targets, a)
    want = (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(logp, want)
    torch.testing.assert_close(loss, -(want * a).sum())
    got = torch.autograd.grad(2 * loss, (hidden, weight))
    for x, y in zip(got, torch.autograd.grad(-2 * (want * a).sum(), (hidden, weight)), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_nothing_to_score() -> None:
    hidden, weight, *_ = problem()
    empty = torch.zeros(0, dtype=torch.int64)
    logp, entropy = head.token_logp(hidden[:0], weight, empty)
    assert logp.shape == entropy.shape == (0,)
    loss, _ = head.weighted_nll(hidden[:0], weight, empty, torch.zeros(0))
    loss.backward()
    assert float(loss.detach()) == 0


def test_full_logits_are_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor of either pass is a chunk's, not (M, V)."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 1 << 12)

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(x, torch.Tensor):
                    self.elements = max(self.elements, x.numel())
            return out

    rows, vocabulary = 300, 1024
    hidden = torch.randn(rows, 8, requires_grad=True)
    weight = torch.randn(vocabulary, 8, requires_grad=True)
    targets = torch.randint(0, vocabulary, (rows,))
    for use in (lambda: head.token_logp(hidden, weight, targets)[0].sum(),
                lambda: head.weighted_nll(hidden, weight, targets, torch.ones(rows))[0]):  # fmt: skip
        with Largest() as largest:
            use().backward()
        assert largest.elements < rows * vocabulary / 10


def test_gradient_of_a_sure_answer_in_bf16() -> None:
    """Where the model is nearly sure, 1 - p must not be lost to the rounding of p."""
    weight = torch.eye(4).to(torch.bfloat16).requires_grad_()
    hidden = torch.tensor([[9.0, 0.0, 0.0, 0.0]], dtype=torch.bfloat16, requires_grad=True)
    target = torch.tensor([0])
    want = 1 - float(hidden.detach().double().softmax(-1)[0, 0])
    for loss in (head.weighted_nll(hidden, weight, target, torch.ones(1))[0],
                 -head.token_logp(hidden, weight, target, with_entropy=False)[0].sum()):  # fmt: skip
        (got,) = torch.autograd.grad(loss, hidden)
        assert float(got[0, 0]) == pytest.approx(-want, rel=0.01)
