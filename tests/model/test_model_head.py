"""The head against the literal formula, in torch and by loops: values, gradients, and no (M, V) tensor, ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fledge.core.native import small_products
from fledge.model import head, head_loops
from fledge.model.head_loops import HeadLoops, use_head_loops

SIZE, VOCABULARY = 96, 700  # the loops' parts are of 128, 512 and 2,048 entries
ROWS = [11, 43, 300]  # tiles of 64 rows, groups of four; 43 are filled up to 44 in torch's bf16 (core/shapes.py)


@pytest.fixture(params=["torch", "loops"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(head, "BLOCK", 64)
    monkeypatch.setattr(head, "CHUNK_LOGITS", VOCABULARY * 4)  # chunks of 4 rows
    if why := use_head_loops(request.param == "loops"):
        assert not small_products(), why  # what computes wrong values refuses itself: no reason to skip
        pytest.skip(f"the head's loops are not to be had here: {why}")
    yield request.param
    use_head_loops(False)


def problem(rows: int = 11, vocabulary: int = VOCABULARY, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, SIZE, generator=generator).to(dtype).requires_grad_()
    weight = (torch.randn(vocabulary, SIZE, generator=generator) / 5).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (rows,), generator=generator)
    targets[:2] = torch.tensor([0, vocabulary - 1])
    return [hidden, weight, targets, *torch.randn(2, rows, generator=generator)]


def literal(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float
) -> list[torch.Tensor]:
    full = (hidden.double() @ weight.double().T / temperature).log_softmax(-1)
    return [full.gather(1, targets[:, None])[:, 0], -(full.exp() * full).sum(-1)]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("vocabulary", [31, 129, VOCABULARY, 2100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logp_and_entropy(way: str, temperature: float, vocabulary: int, rows: int) -> None:
    hidden, weight, targets, a, b = problem(rows, vocabulary)
    assert HeadLoops.serve(hidden, weight) == (way == "loops")
    logp, entropy = head.token_logp(hidden, weight, targets, temperature)
    want, want_entropy = literal(hidden, weight, targets, temperature)
    torch.testing.assert_close(logp.double(), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy.double(), want_entropy, rtol=1e-5, atol=1e-5)
    for ours, theirs in (
        ((logp * a).sum() + (entropy * b).sum(), (want * a).sum() + (want_entropy * b).sum()),
        ((logp * a).sum(), (want * a).sum()),
    ):
        got = torch.autograd.grad(ours, (hidden, weight), retain_graph=True)
        expected = torch.autograd.grad(theirs, (hidden, weight), retain_graph=True)
        for x, y in zip(got, expected, strict=True):
            assert float((x - y).norm() / y.norm()) < 5e-6


@pytest.mark.parametrize("rows", ROWS)
def test_bf16_is_as_close_as_its_rounding(way: str, rows: int) -> None:
    hidden, weight, targets, a, b = problem(rows, dtype=torch.bfloat16)
    logp, entropy = head.token_logp(hidden, weight, targets)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    want, want_entropy = literal(exact[0], exact[1], targets, 1.0)
    # torch rounds the logits themselves, which are of up to ten or so here
    assert float((logp - want).detach().abs().max()) < (1e-4 if way == "loops" else 0.05)
    got = torch.autograd.grad((logp * a).sum() + (entropy * b).sum(), (hidden, weight))
    expected = torch.autograd.grad((want * a).sum() + (want_entropy * b).sum(), exact)
    for x, y in zip(got, expected, strict=True):
        assert float((x - y).norm() / y.norm()) < 0.01
    loss, logp = head.weighted_nll(hidden, weight, targets, a)
    assert float((logp - want).detach().abs().max()) < (1e-4 if way == "loops" else 0.05)
    expected = torch.autograd.grad(-(literal(exact[0], exact[1], targets, 1.0)[0] * a).sum(), exact)
    for x, y in zip(torch.autograd.grad(loss, (hidden, weight)), expected, strict=True):
        assert float((x - y).norm() / y.norm()) < 0.01


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("rows", ROWS)
def test_weighted_nll(way: str, rows: int, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "SMALL", VOCABULARY if small else 0)
    hidden, weight, targets, a, _ = problem(rows)
    loss, logp = head.weighted_nll(hidden, weight, targets, a)
    want = literal(hidden, weight, targets, 1.0)[0]
    torch.testing.assert_close(logp.double(), want, rtol=1e-5, atol=1e-5)
    assert not logp.requires_grad
    torch.testing.assert_close(loss.double(), -(want * a).sum(), rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(2 * loss, (hidden, weight))
    for x, y in zip(got, torch.autograd.grad(-2 * (want * a).sum(), (hidden, weight)), strict=True):
        assert float((x - y).norm() / y.norm()) < 5e-6


def test_likelihood_of_several_groups_of_rows(way: str) -> None:
    """With 20,000 entries the loops keep the exponentials of 256 rows at a time, and torch those of 4."""
    hidden, weight, targets, a, _ = problem(300, 20_000)
    loss, logp = head.weighted_nll(hidden, weight, targets, a)
    want = literal(hidden, weight, targets, 1.0)[0]
    torch.testing.assert_close(logp.double(), want, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(-(want * a).sum(), (hidden, weight))
    for x, y in zip(torch.autograd.grad(loss, (hidden, weight)), expected, strict=True):
        assert float((x - y).norm() / y.norm()) < 5e-6


@pytest.mark.parametrize("target", [-1, VOCABULARY])
def test_a_target_that_is_no_entry_is_refused(way: str, target: int) -> None:
    hidden, weight, targets, a, _ = problem()
    targets[4] = target
    for use in (lambda: head.token_logp(hidden, weight, targets),
                lambda: head.weighted_nll(hidden, weight, targets, a)):  # fmt: skip
        with pytest.raises((IndexError, RuntimeError), match=r"targets from|out of bounds"):
            use()


def test_nothing_to_score(way: str) -> None:
    hidden, weight, *_ = problem()
    empty = torch.zeros(0, dtype=torch.int64)
    logp, entropy = head.token_logp(hidden[:0], weight, empty)
    assert logp.shape == entropy.shape == (0,)
    loss, _ = head.weighted_nll(hidden[:0], weight, empty, torch.zeros(0))
    loss.backward()
    assert float(loss.detach()) == 0


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that an operation gave, and the shapes of all."""

    elements = 0
    shapes: frozenset[tuple[int, ...]] = frozenset()

    def __torch_dispatch__(self, func: Callable[..., object], types: object, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
                self.shapes |= {tuple(x.shape)}
        return out


@pytest.mark.parametrize("small", [True, False])
def test_full_logits_are_never_built(way: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = vocabulary = 6400  # the loops keep four million exponentials
    monkeypatch.setattr(head, "CHUNK_LOGITS", 1 << 20)
    monkeypatch.setattr(head, "SMALL", vocabulary if small else 0)
    hidden, weight, targets, *_ = problem(rows, vocabulary)
    for use in (lambda: head.token_logp(hidden, weight, targets)[0].sum(),
                lambda: head.weighted_nll(hidden, weight, targets, torch.ones(rows))[0]):  # fmt: skip
        with Largest() as largest:
            use().backward()
        assert largest.elements < rows * vocabulary / 8


@pytest.mark.parametrize("small", [True, False])
def test_a_frozen_weight_gets_no_gradient(way: str, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under adapters: the hidden states' gradient is the same to the last bit, and the weight's is not made."""
    monkeypatch.setattr(head, "SMALL", VOCABULARY if small else 0)
    hidden, weight, targets, a, b = problem()

    def nll(weight: torch.Tensor) -> torch.Tensor:
        return head.weighted_nll(hidden, weight, targets, a)[0]

    def logp_and_entropy(weight: torch.Tensor) -> torch.Tensor:
        logp, entropy = head.token_logp(hidden, weight, targets, 0.7)
        return (logp * a).sum() + (entropy * b).sum()

    for use in (nll, logp_and_entropy):
        want, _ = torch.autograd.grad(use(weight), (hidden, weight))
        frozen = weight.detach()
        hidden.grad = None
        with Largest() as largest:
            use(frozen).backward()
        assert hidden.grad is not None
        assert torch.equal(hidden.grad, want)
        assert frozen.grad is None
        assert tuple(frozen.shape) not in largest.shapes


def test_many_rows_have_smaller_blocks() -> None:
    targets = torch.arange(40_000) % 5000
    blocks = list(head._blocks(targets, 5000))
    assert all((block.stop - block.start) * len(targets) <= head.MOST_LOGITS * 1.25 for block, _ in blocks)
    assert [block.start for block, _ in blocks[1:]] == [block.stop for block, _ in blocks[:-1]]
    assert blocks[-1][0].stop == 5000
    for block, rows in blocks:
        assert sorted(rows.tolist()) == torch.nonzero((targets >= block.start) & (targets < block.stop))[:, 0].tolist()


def test_gradient_of_a_sure_answer_in_bf16(way: str) -> None:
    """Where the model is nearly sure, 1 - p must not be lost to the rounding of p."""
    weight = torch.eye(SIZE)[:4].to(torch.bfloat16).requires_grad_()
    hidden = (9.0 * torch.eye(SIZE)[:1]).to(torch.bfloat16).requires_grad_()
    target = torch.tensor([0])
    want = 1 - float((hidden @ weight.T).detach().double().softmax(-1)[0, 0])
    for loss in (head.weighted_nll(hidden, weight, target, torch.ones(1))[0],
                 -head.token_logp(hidden, weight, target, with_entropy=False)[0].sum()):  # fmt: skip
        (got,) = torch.autograd.grad(loss, hidden)
        assert float(got[0, 0]) == pytest.approx(-want, rel=0.01)


@pytest.mark.parametrize("dtype", head_loops.DTYPES)
def test_any_number_of_threads_gives_the_same_bytes(dtype: torch.dtype) -> None:
    if why := use_head_loops(True, dtype):
        assert not small_products(), why
        pytest.skip(f"the head's loops are not to be had here: {why}")
    use_head_loops(False)
    hidden, weight, targets, a, b = (x.detach() for x in problem(300, dtype=dtype))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            lse, *values = head_loops.forward(hidden, weight, targets, 0.8, with_entropy=True)
            gradients = head_loops.backward(hidden, weight, targets, 0.8, lse, a, b, values[1], b)
            found.append((lse, *values, *gradients, *head_loops.nll(hidden, weight, targets, a)))
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], others, strict=True))


@pytest.mark.parametrize("what", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(way: str, what: float) -> None:
    hidden, weight, targets, *_ = (x.detach() for x in problem(70))
    hidden[3, 5] = what
    logp, _ = head.token_logp(hidden, weight, targets, with_entropy=False)
    assert not torch.isfinite(logp[3])
    assert torch.isfinite(logp[[2, 4, 69]]).all()


def test_without_small_products_torch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    head_loops.missing.cache_clear()
    try:
        why = use_head_loops(True)
        assert "small products" in why or "AVX-512" in why  # what is missing first, where both are
        hidden, weight, *_ = problem()
        assert not HeadLoops.serve(hidden, weight)
    finally:
        head_loops.missing.cache_clear()
        use_head_loops(False)
