"""The passes over activations between the products, each written once, forward and backward, in plain torch.

As they stand, each costs several passes over memory. `compile_passes` (called by commands, never at import) has
inductor make one loop of each: measured on 2 cores with AMX, 4,096 x 256 and 4,096 x 1,376 in bf16, RMSNorm 1.1 -> 0.3
ms and its backward 2.4 -> 0.7, the gate 2.7 -> 1.7 and its backward 12.2 -> 2.6. Where there is no compiler they run as
they stand. Nothing here is differentiable by itself: the autograd functions that call these say what is kept.

Rows are never summed here, only the entries of a row: how a loop over rows is cut depends on the first batch that it
was compiled for, and a resumed run begins with another batch (promise 6).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.core.machine import cxx_compiler

P = ParamSpec("P")
R = TypeVar("R")
ROWS = 2048  # rows that loops are laid out for


class OnePass(Generic[P, R]):
    """A function whose tensors have any number of rows; their other dimensions are fixed when it is compiled."""

    compiled = False  # of all

    def __init__(self, plain: Callable[P, R]) -> None:
        functools.update_wrapper(self, plain)
        self.plain = plain
        self._fast: Callable[..., R] | None = None
        self._known: set[tuple[object, ...]] = set()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        rows = len(args[0])  # type: ignore[arg-type]
        # a single row would be compiled for itself
        if not OnePass.compiled or rows < 2:
            return self.plain(*args, **kwargs)
        if self._fast is None:
            self._fast = torch.compile(self.plain, dynamic=False)
        # The first batch decides how loops are laid out; so that it is always the same, it is one of ROWS rows.
        kind = tuple((x.dtype, x.shape[1:], x.stride()) for x in args if isinstance(x, Tensor))
        if kind not in self._known:
            self._fast(*(_any_rows(_enlarged(x, rows), ROWS) for x in args))
            self._known.add(kind)
        with named(self.plain.__name__):
            return self._fast(*(_any_rows(x, rows) for x in args))


def named(name: str, flops: int = 0) -> AbstractContextManager[object]:
    """What is computed within is one operation for a profiler, ``fledge::name``, with ``flops`` of products where
    there are any (train/trace.py reads both). Nothing where no profiler is watching."""
    if torch.autograd._profiler_enabled():
        return torch.profiler.record_function(f"fledge::{name}#{flops}" if flops else f"fledge::{name}")
    return nullcontext()


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
    if OnePass.compiled:
        # every shape of every model of the process; beyond the limit, torch goes back to the plain function silently
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    return why


@functools.cache
def missing() -> str:
    """Why passes cannot be compiled here; empty where they can."""
    if torch.cuda.is_available():
        return "" if importlib.util.find_spec("triton") else "triton is not installed"
    return "" if cxx_compiler() else "there is no C++ compiler (g++, or CXX)"


def one_pass(plain: Callable[P, R]) -> OnePass[P, R]:
    return OnePass(plain)


@one_pass
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (N, h) -> normalised in float32, cast back, then scaled (N, h), and 1/rms (N, 1) float32."""
    wide = x.float()
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    scale = torch.rsqrt(norm.square() / x.shape[-1] + eps)
    return (wide * scale).to(x.dtype) * weight, scale


@one_pass
def rms_norm_backward(g: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """-> gradient of x (N, h), and what summed over the rows is that of the weight (N, h)."""
    unit = (x.float() * scale).to(x.dtype)
    inner = (g * weight).float()
    along = (inner * unit).mean(-1, keepdim=True)
    return ((inner - unit * along) * scale).to(g.dtype), g * unit


@one_pass
def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (N, heads, d), tables (N, 1, d), the first half of sin negative -> (N, heads, d)."""
    return x * cos + torch.roll(x, x.shape[-1] // 2, -1) * sin


@one_pass
def gate(both: Tensor) -> Tensor:
    """silu(a) * b, a and b (N, i) beside each other in (N, 2i) -> (N, i)."""
    a, b = both.chunk(2, -1)
    return F.silu(a) * b


@one_pass
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
