"""The output head as loops of our own (head_loops.cpp), for CPUs with AVX-512: logits never leave the cache.

Two ways. `forward` and `backward`, for any vocabulary and objective, make logits twice. Forward, a tile of 64 rows
meets the vocabulary, 128 entries at a time, and keeps the running maximum and sums of each row (Milakov and Gimelshein
2018). Backward, of 512 entries at a time the gradient is held for all rows, multiplied with the weight, and with the
hidden states, which finishes those rows of the weight's gradient. Four products, and nothing of the size of rows times
vocabulary.

`nll`, for weights that are known beforehand and a small vocabulary: of some hundred rows at a time the exponentials
(four million or so) are kept until the rows' sums are known, and become the gradient where they lie. Three products.

Products are torch's small ones (core/native.py). The number of threads changes no bit.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from fledge.core.native import computes, load_loops, named, refusal, slopes, small_products

TILE = 64
DTYPES = (torch.float32, torch.bfloat16)


class _Call(Structure):
    _fields_ = (
        ("rows", c_int64), ("size", c_int64), ("vocabulary", c_int64), ("hidden", c_void_p), ("weight", c_void_p),
        ("targets", c_void_p), ("sharpness", c_float), ("with_entropy", c_int), ("product", c_void_p),
        ("release", c_void_p), ("threads", c_int64),
    )  # fmt: skip


class _Slopes(Structure):
    _fields_ = tuple((name, c_void_p) for name in ("lse", "on_share", "entropy", "on_entropy", "own"))


_FUNCTIONS = {
    "fledge_head": (c_int, POINTER(_Call), *[c_void_p] * 5),
    "fledge_head_backward": (c_int, POINTER(_Call), POINTER(_Slopes), *[c_void_p] * 6),
    "fledge_head_nll": (c_int, POINTER(_Call), *[c_void_p] * 9),
}
_SIZES = {
    f"fledge_head_{size}": (POINTER(_Call),)
    for size in ("sums", "slopes", "turned", "nll_slopes", "nll_turned", "nll_kept", "nll_rows")
}


class HeadLoops:
    """Whether the head is computed by these loops, in this process. `use_head_loops` decides."""

    on = False

    @staticmethod
    def serve(hidden: Tensor, weight: Tensor) -> bool:
        return (
            HeadLoops.on and hidden.device.type == "cpu" and hidden.dtype == weight.dtype and computes(hidden.dtype)
            and hidden.shape[1] % 32 == 0 and len(hidden) > 0 and hidden.is_contiguous() and weight.is_contiguous()
        )  # fmt: skip


def use_head_loops(on: bool, dtype: torch.dtype | None = None) -> str:
    """The head by these loops from now on, if ``dtype`` is computed here (None: any). -> why not, where it was to be.
    """
    why = missing(dtype) if on else ""
    HeadLoops.on = on and not why
    return why


@functools.cache
def missing(dtype: torch.dtype | None = None) -> str:
    """Why these loops are not to be had here, for ``dtype`` (None: any); empty where they are. Builds them."""
    return refusal(_error, DTYPES if dtype is None else (dtype,))


@functools.cache
def _library() -> ctypes.CDLL:
    return load_loops(Path(__file__).with_name("head_loops.cpp"), _FUNCTIONS, _SIZES)


def _call(hidden: Tensor, weight: Tensor, targets: Tensor, sharpness: float, with_entropy: bool) -> _Call:
    products = small_products()
    if products is None or targets.dtype != torch.int64 or not targets.is_contiguous():
        raise TypeError(f"the head's loops take contiguous int64 targets, not {targets.dtype}, where `serve` says so")
    if hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden states of {hidden.shape[1]} numbers and a weight of {weight.shape[1]}")
    if not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
        raise IndexError(f"targets from {int(targets.min())} to {int(targets.max())} with {len(weight)} entries")
    return _Call(
        *hidden.shape, len(weight), hidden.data_ptr(), weight.data_ptr(), targets.data_ptr(), sharpness, with_entropy,
        products.of(hidden.dtype), products.release, torch.get_num_threads(),
    )  # fmt: skip


def forward(
    hidden: Tensor, weight: Tensor, targets: Tensor, sharpness: float, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """hidden (M, h), weight (V, h), targets (M,), contiguous -> lse of sharpness * logits, log-probability, entropy
    (zeros where not asked for), each (M,) float32."""
    call, loops = _call(hidden, weight, targets, sharpness, with_entropy), _library()
    rows, room = len(targets), -(-len(targets) // TILE) * TILE
    packs = hidden.new_empty(room * hidden.shape[1])
    sums = hidden.new_empty(loops.fledge_head_sums(byref(call)), dtype=torch.uint8)
    lse, logp, entropy = hidden.new_zeros(3, rows, dtype=torch.float32)
    with named("head", 2 * rows * weight.numel()):
        loops.fledge_head(
            int(hidden.dtype == torch.bfloat16), byref(call),
            *[x.data_ptr() for x in (packs, sums, lse, logp, entropy)],
        )  # fmt: skip
    return lse, logp, entropy


def backward(
    hidden: Tensor, weight: Tensor, targets: Tensor, sharpness: float, lse: Tensor, on_share: Tensor, own: Tensor,
    entropy: Tensor | None, on_entropy: Tensor | None, with_weight: bool = True,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The gradient of the logits is softmax * (on_share + on_entropy * (ln softmax + entropy)), and ``own`` at the
    target; all (M,) float32. -> gradients of hidden (M, h) and weight (V, h), in their type; the weight's only
    ``with_weight``."""
    call, loops = _call(hidden, weight, targets, sharpness, entropy is not None), _library()
    rows, size = hidden.shape
    room = -(-rows // TILE) * TILE
    columns = hidden.new_zeros(5, room, dtype=torch.float32)
    for column, given in zip(columns, (lse, on_share, entropy, on_entropy, own), strict=True):
        if given is not None:
            column[:rows] = given
    sizes = (2 * room * size, loops.fledge_head_slopes(byref(call)), loops.fledge_head_turned(byref(call)))
    packs, slopes, turned = (hidden.new_empty(n) for n in sizes)
    sums = hidden.new_empty(room * size, dtype=torch.float32)
    d_hidden, d_weight = torch.empty_like(hidden), torch.empty_like(weight) if with_weight else None
    with named("head_backward", (6 if with_weight else 4) * rows * weight.numel()):
        loops.fledge_head_backward(
            int(hidden.dtype == torch.bfloat16), byref(call), byref(_Slopes(*[x.data_ptr() for x in columns])),
            *[x.data_ptr() for x in (packs, slopes, turned, sums, d_hidden)], _pointer(d_weight),
        )  # fmt: skip
    return d_hidden, d_weight


def nll(
    hidden: Tensor, weight: Tensor, targets: Tensor, token_weight: Tensor, with_weight: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """-> log-probabilities (M,), and of -sum of them * token_weight (M,) the gradients of hidden (M, h), in its type,
    and, ``with_weight``, of weight (V, h) in float32. Three products, or two: for vocabularies of which a few hundred
    rows can be kept."""
    call, loops = _call(hidden, weight, targets, 1.0, with_entropy=False), _library()
    (rows, size), room = hidden.shape, -(-len(hidden) // TILE) * TILE
    weights = torch.nn.functional.pad(token_weight.float(), (0, room - rows))
    sizes = (2 * room * size, loops.fledge_head_nll_slopes(byref(call)), loops.fledge_head_nll_turned(byref(call)))
    packs, slopes, turned = (hidden.new_empty(n) for n in sizes)
    kept = hidden.new_empty(loops.fledge_head_nll_kept(byref(call)), dtype=torch.uint8)
    sums, logp = hidden.new_empty(room * size, dtype=torch.float32), hidden.new_zeros(rows, dtype=torch.float32)
    d_hidden = torch.empty_like(hidden)
    room_rows = loops.fledge_head_nll_rows(byref(call))
    d_weight = hidden.new_empty(room_rows, size, dtype=torch.float32) if with_weight else None
    with named("head", (6 if with_weight else 4) * rows * weight.numel()):
        loops.fledge_head_nll(
            int(hidden.dtype == torch.bfloat16), byref(call),
            *[x.data_ptr() for x in (weights, packs, slopes, turned, kept, sums, logp, d_hidden)], _pointer(d_weight),
        )  # fmt: skip
    return logp, d_hidden, d_weight[: len(weight)] if d_weight is not None else None


def _pointer(tensor: Tensor | None) -> int | None:
    """Null where there is none."""
    return tensor.data_ptr() if tensor is not None else None


def _error() -> float:
    """Of small log-probabilities and entropies and their gradients, in every type, against the formula: the worst."""
    generator, errors = torch.Generator().manual_seed(0), []
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float32)  # noqa: E731
    targets = torch.arange(70) * 8
    ups = make(2, 70)
    for dtype in DTYPES:
        if not computes(dtype):
            continue
        hidden, weight = make(70, 32).to(dtype), (make(600, 32) / 6).to(dtype)
        exact = [x.float().requires_grad_() for x in (hidden, weight)]
        with torch.enable_grad():
            full = (exact[0] @ exact[1].T).log_softmax(-1)
            logp, entropy = full[torch.arange(70), targets], -(full.exp() * full).sum(-1)
            wanted = slopes([logp, entropy], list(ups), exact)
            alone = slopes([logp], [ups[0]], exact)
        lse, *found = forward(hidden, weight, targets, 1.0, with_entropy=True)
        chance = found[0].exp()
        own = ups[0] * (1 - chance) - ups[1] * chance * (found[0] + found[1])
        gradients = backward(hidden, weight, targets, 1.0, lse, -ups[0], own, found[1], -ups[1])
        whole = nll(hidden, weight, targets, -ups[0])
        pairs = zip((*found, *gradients, *whole), (logp, entropy, *wanted, logp, *alone), strict=True)
        errors += [float((a.float() - b.detach()).norm() / b.detach().norm()) for a, b in pairs if a is not None]
    return max(errors)
