"""The passes over activations between the products, each written once, forward and backward, in plain torch.

As they stand, each costs several passes over memory. `compile_passes` (called by commands, never at import) makes one
loop of each: one of our own where the processor has AVX-512 (pass_loops.py), elsewhere one that torch's compiler makes.
Where there is no compiler they run as they stand. Nothing here is differentiable by itself: the autograd functions that
call these say what is kept.

Rows are never summed here, only the entries of a row: how a loop of torch's compiler over rows is cut depends on the
first batch that it was compiled for, and a resumed run begins with another batch (promise 6).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.core.machine import cxx_compiler
from fledge.core.native import named
from fledge.model import pass_loops

P = ParamSpec("P")
R = TypeVar("R")
ROWS = 2048  # rows that loops are laid out for


class OnePass(Generic[P, R]):
    """A function whose tensors have any number of rows; their other dimensions are fixed when it is compiled."""

    compiled = False  # of all

    def __init__(self, plain: Callable[P, R], loop: Callable[P, R] | None = None) -> None:
        functools.update_wrapper(self, plain)
        self.plain, self.loop = plain, loop
        self._fast: Callable[..., R] | None = None
        self._known: set[tuple[object, ...]] = set()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not OnePass.compiled:
            return self.plain(*args, **kwargs)
        if self.loop is not None and pass_loops.serve(*(x for x in args if isinstance(x, Tensor))):
            with named(self.plain.__name__):
                return self.loop(*args, **kwargs)
        rows = len(args[0])  # type: ignore[arg-type]
        if rows < 2:  # it would be compiled for itself
            return self.plain(*args, **kwargs)
        return self._by_torch(rows, *args, **kwargs)

    def _by_torch(self, rows: int, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._fast is None:
            # one of each shape of each model of the process; beyond the limit, torch silently runs the plain function
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
            self._fast = torch.compile(self.plain, dynamic=False)
        # The first batch decides how loops are laid out; so that it is always the same, it is one of ROWS rows.
        kind = tuple((x.dtype, x.shape[1:], x.stride()) for x in args if isinstance(x, Tensor))
        if kind not in self._known:
            self._fast(*(_any_rows(_enlarged(x, rows), ROWS) for x in args))
            self._known.add(kind)
        with named(self.plain.__name__):
            return self._fast(*(_any_rows(x, rows) for x in args))


def _any_rows(x: object, rows: int) -> object:
    if isinstance(x, Tensor) and x.ndim and x.shape[0] == rows:
        torch._dynamo.maybe_mark_dynamic(x, 0)
    return x


def _enlarged(x: object, rows: int) -> object:
    if isinstance(x, Tensor) and x.ndim and x.shape[0] == rows:
        return torch.empty_strided((ROWS, *x.shape[1:]), x.stride(), dtype=x.dtype, device=x.device).zero_()
    return x


def compile_passes(on: bool) -> str:
    """Whether the passes are compiled from now on, in this process. -> why they are not, where they were to be."""
    why = missing() if on else ""
    OnePass.compiled = on and not why
    return why


@functools.cache
def missing() -> str:
    """Why passes cannot be compiled here; empty where they can."""
    if torch.cuda.is_available():
        return "" if importlib.util.find_spec("triton") else "triton is not installed"
    return "" if cxx_compiler() else "there is no C++ compiler (g++, or CXX)"


def one_pass(plain: Callable[P, R]) -> OnePass[P, R]:
    return OnePass(plain)


def one_pass_or(loop: Callable[P, R]) -> Callable[[Callable[P, R]], OnePass[P, R]]:
    """A pass of which there is a loop of our own, too."""
    return lambda plain: OnePass(plain, loop)


@one_pass_or(pass_loops.rms_norm)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (N, h) -> normalised in float32, cast back, then scaled (N, h), and 1/rms (N, 1) float32."""
    wide = x.float()
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = torch.rsqrt(norm.square() / x.shape[-1] + eps)
    return (wide * scale).to(x.dtype) * weight, scale


@one_pass_or(pass_loops.rms_norm_backward)
def rms_norm_backward(g: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """-> gradient of x (N, h), and rows (any number, h) whose sum is that of the weight."""
    unit = (x.float() * scale).to(x.dtype)
    inner = (g * weight).float()
    along = (inner * unit).mean(-1, keepdim=True)
    return ((inner - unit * along) * scale).to(g.dtype), g * unit


@one_pass_or(pass_loops.rotate_pairs)
def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (N, heads, d), tables (N, 1, d), the first half of sin negative -> (N, heads, d)."""
    return x * cos + torch.roll(x, x.shape[-1] // 2, -1) * sin


@one_pass_or(pass_loops.gate)
def gate(both: Tensor) -> Tensor:
    """silu(a) * b, a and b (N, i) beside each other in (N, 2i) -> (N, i)."""
    a, b = both.chunk(2, -1)
    return F.silu(a) * b


@one_pass_or(pass_loops.gate_backward)
def gate_backward(g: Tensor, both: Tensor) -> Tensor:
    """-> gradient of both (N, 2i)"""
    a, b = both.chunk(2, -1)
    return torch.cat([torch.ops.aten.silu_backward(g * b, a), g * F.silu(a)], -1)


@one_pass
def normalisers(logits: Tensor, sharpness: float) -> Tensor:
    """logits (M, V) -> log of the sum of exp(sharpness * logits), (M,) float32."""
    return (logits.float() * sharpness).logsumexp(-1)


@one_pass
def entropies(logits: Tensor, sharpness: float, lse: Tensor) -> Tensor:
    """Of softmax(sharpness * logits) -> (M,) float32."""
    logp = logits.float() * sharpness - lse[:, None]
    return -(logp.exp() * logp).sum(-1)


@one_pass
def shares(logits: Tensor, sharpness: float, lse: Tensor, weight: Tensor) -> Tensor:
    """softmax(sharpness * logits) * weight (M,), in the logits' dtype: (M, V)"""
    return ((logits.float() * sharpness - lse[:, None]).exp() * weight[:, None]).to(logits.dtype)


@one_pass
def shares_and_entropy(
    logits: Tensor, sharpness: float, lse: Tensor, weight: Tensor, entropy: Tensor, entropy_weight: Tensor
) -> Tensor:
    """softmax(z) * (weight + entropy_weight * (ln softmax(z) + entropy)), z = sharpness * logits: (M, V)"""
    logp = logits.float() * sharpness - lse[:, None]
    return (logp.exp() * (weight[:, None] + entropy_weight[:, None] * (logp + entropy[:, None]))).to(logits.dtype)
