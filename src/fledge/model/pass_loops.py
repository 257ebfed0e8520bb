"""The passes between products as loops of our own (pass_loops.cpp), for CPUs with AVX-512.

On 2 cores with AMX, 4,096 x 256 and 4,096 x 1,376 in bf16 and float32, 1.2 to 4 times as fast as what torch's
compiler makes of passes.py, and there at once: importing that compiler and compiling for it takes 8 s and 114 MiB in
every process, the first time on a machine 15 to 30 s.
"""

from __future__ import annotations

import functools
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.core.native import load_loops, refusal, slopes

DTYPES = (torch.float32, torch.bfloat16)
_BLOCK = 64  # rows, as in pass_loops.cpp
_FUNCTIONS = {
    "fledge_norm": (c_int, c_int64, c_int64, c_void_p, c_void_p, c_float, c_void_p, c_void_p, c_int64),
    "fledge_norm_backward": (c_int, c_int64, c_int64, *[c_void_p] * 6, c_int64),
    "fledge_gate": (c_int, c_int64, c_int64, c_void_p, c_void_p, c_int64),
    "fledge_gate_backward": (c_int, c_int64, c_int64, *[c_void_p] * 3, c_int64),
    "fledge_rotate": (c_int, *[c_int64] * 4, *[c_void_p] * 4, c_int64),
}


def serve(*tensors: Tensor) -> bool:
    """Whether these loops take such tensors, in this process: on the processor, all of one type, a row's single numbers
    (1/rms) in float32."""
    dtype = tensors[0].dtype
    of_one_type = all(x.dtype == (torch.float32 if x.shape[-1] == 1 else dtype) for x in tensors)
    return dtype in DTYPES and of_one_type and all(x.device.type == "cpu" for x in tensors) and not missing()


@functools.cache
def missing() -> str:
    """Why these loops are not to be had here; empty where they are. Builds them."""
    return refusal(_error)


@functools.cache
def _library() -> Any:
    return load_loops(Path(__file__).with_name("pass_loops.cpp"), _FUNCTIONS)


def _expect(x: Tensor, *shape: int) -> Tensor:
    """x as it lies in memory without gaps. Raises ValueError where it has another shape: a loop would not notice."""
    if x.shape != shape:
        raise ValueError(f"a tensor of {tuple(x.shape)} where {shape} is expected")
    return x.contiguous()


def _run(name: str, *arguments: Tensor | int | float) -> None:
    """Of the first tensor's type; every tensor as its address."""
    half = next(x.dtype == torch.bfloat16 for x in arguments if isinstance(x, Tensor))
    given = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    getattr(_library(), f"fledge_{name}")(int(half), *given, torch.get_num_threads())


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (N, h), weight (h,) -> normalised and scaled (N, h), and 1/rms (N, 1) float32."""
    x, weight = x.contiguous(), _expect(weight, x.shape[1])
    out, scale = torch.empty_like(x), x.new_empty(len(x), 1, dtype=torch.float32)
    _run("norm", *x.shape, x, weight, eps, out, scale)
    return out, scale


def rms_norm_backward(g: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """-> gradient of x (N, h), and float32 sums (N / 64, h) that add up to that of the weight."""
    x = x.contiguous()
    g, weight, scale = _expect(g, *x.shape), _expect(weight, x.shape[1]), _expect(scale, len(x), 1)
    d_x, sums = torch.empty_like(x), x.new_empty(-(-len(x) // _BLOCK), x.shape[1], dtype=torch.float32)
    _run("norm_backward", *x.shape, g, x, weight, scale, d_x, sums)
    return d_x, sums


def gate(both: Tensor) -> Tensor:
    """a and b beside each other (N, 2i) -> silu(a) * b (N, i)."""
    both = both.contiguous()
    out = both.new_empty(len(both), both.shape[1] // 2)
    _run("gate", *out.shape, both, out)
    return out


def gate_backward(g: Tensor, both: Tensor) -> Tensor:
    """-> gradient of both (N, 2i)"""
    g, both = g.contiguous(), _expect(both, len(g), 2 * g.shape[1])
    d_both = torch.empty_like(both)
    _run("gate_backward", *g.shape, g, both, d_both)
    return d_both


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (N, heads, d), tables (N, 1, d), the first half of sin negative -> (N, heads, d)."""
    rows, heads, d = x.shape
    cos, sin = _expect(cos, rows, 1, d), _expect(sin, rows, 1, d)
    if x.stride()[1:] != (d, 1):  # columns of a wider row are taken where they lie
        x = x.contiguous()
    out = x.new_empty(x.shape)
    _run("rotate", rows, heads, d, x.stride(0), x, cos, sin, out)
    return out


def _error() -> float:
    """Of small passes in every type, against torch in float64: the worst, relative."""
    generator, errors = torch.Generator().manual_seed(0), []
    for dtype in DTYPES:
        g, x, weight = (torch.randn(*shape, generator=generator, dtype=torch.float32).to(dtype)
                        for shape in ((70, 40), (70, 40), (40,)))  # fmt: skip
        exact = [t.double().requires_grad_() for t in (x, weight)]
        with torch.enable_grad():
            normed = F.rms_norm(exact[0], (40,), exact[1], 1e-6)
            gated = F.silu(exact[0][:, :20]) * exact[0][:, 20:]
            wanted = (*slopes([normed], [g.double()], exact), *slopes([gated], [g[:, :20].double()], exact[:1]))
        turned = g[:, None] * exact[0][:, None] + exact[0].roll(20, -1)[:, None] * weight.double()
        out, scale = rms_norm(x, weight, 1e-6)
        d_x, sums = rms_norm_backward(g, x, weight, scale)
        table = weight.expand(70, 1, 40)
        found = (
            out,
            gate(x),
            d_x,
            sums.sum(0),
            gate_backward(g[:, :20], x),
            rotate_pairs(x[:, None], g[:, None], table),
        )
        pairs = zip(found, (normed, gated, *wanted, turned), strict=True)
        errors += [float((a.double() - b.detach()).norm() / b.detach().norm()) for a, b in pairs]
    return max(errors)
