"""Attention of one new token a row over keys and values in pages: the ways to read them, and which works here.

On CUDA torch's ``varlen_attn`` reads pages through a table where its kernel can; where it cannot (torch 2.11), the keys
of all rows are copied side by side for it. Which of them works depends on torch, the kernel that is installed, and the
type: so each is tried once with a small case, on the device, against plain products, and one that fails or differs is
not used. Those products are what reads pages on a CPU, in any type.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.generate.pages import PagedCache

# q (R, q, d), keys and values (pages, size, k, d) -> (R, q, d)
Reader = Callable[[Tensor, Tensor, Tensor, "Table"], Tensor]


@dataclass(frozen=True, eq=False)
class Table:
    """What rows read: ``pages`` (R, W) int32 of ``size`` tokens, ``lengths`` (R,) int32 tokens of each, ``longest`` of
    them. What follows from it is made once, for all layers."""

    pages: Tensor
    lengths: Tensor
    longest: int
    size: int

    @functools.cached_property
    def queries(self) -> Tensor:
        """(R + 1,) int32 where each row's one query begins, and the end."""
        return torch.arange(len(self.lengths) + 1, dtype=torch.int32, device=self.lengths.device)

    @functools.cached_property
    def ends(self) -> Tensor:
        """(R + 1,) int32 where rows end if they lie side by side, beginning with 0."""
        return F.pad(self.lengths.cumsum(0), (1, 0)).to(torch.int32)

    @functools.cached_property
    def places(self) -> Tensor:
        """(T,) places of all tokens of all rows in the flat pool, one row after the other."""
        column = torch.arange(self.pages.shape[1] * self.size, device=self.pages.device)
        flat = self.pages.long().repeat_interleave(self.size, 1) * self.size + column % self.size
        return flat[column < self.lengths[:, None]]


def gathered(q: Tensor, keys: Tensor, values: Tensor, table: Table) -> Tensor:
    """The definition: every row's pages side by side, and what lies beyond its length hidden."""
    at = table.pages.long()
    k, v = (x[at].flatten(1, 2).transpose(1, 2) for x in (keys, values))  # (R, k, W * size, d)
    see = torch.arange(k.shape[2], device=q.device) < table.lengths[:, None]
    out = F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=see[:, None, None], enable_gqa=True)
    return out[:, :, 0]


def through_table(q: Tensor, keys: Tensor, values: Tensor, table: Table, ends: bool = False) -> Tensor:
    """``varlen_attn`` finds the pages itself. Flash Attention 3 wants to know nothing but the table and the lengths; 2,
    which takes pages of 256 tokens and multiples of it, wants to be told where rows end too, and then does not look."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q, keys, values, table.queries, table.ends if ends else None, 1, table.longest, seqused_k=table.lengths,
        block_table=table.pages, **_shared(),
    )  # fmt: skip
    assert isinstance(out, Tensor)  # no log-sum-exp was asked for
    return out


def side_by_side(q: Tensor, keys: Tensor, values: Tensor, table: Table) -> Tensor:
    """``varlen_attn`` over a copy without gaps."""
    from torch.nn.attention.varlen import varlen_attn

    k, v = (x.flatten(0, 1)[table.places] for x in (keys, values))
    out = varlen_attn(q, k, v, table.queries, table.ends, 1, table.longest, **_shared())
    assert isinstance(out, Tensor)
    return out


@functools.cache
def _shared() -> dict[str, Any]:
    """That query heads share key heads has to be asked for where torch has a word for it, and shows in the shapes
    where it has none."""
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    return {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


READERS: dict[str, Reader] = {
    "table": through_table,
    "table and ends": functools.partial(through_table, ends=True),
    "side by side": side_by_side,
    "gathered": gathered,
}
IN_PLACE = ("table", "table and ends")  # those that copy nothing


@functools.cache
def best_reader(device: str, dtype: torch.dtype, heads: int, kv_heads: int, d: int, size: int) -> str:
    """The first of `READERS` that gives on this device what the last gives."""
    if not device.startswith("cuda"):
        return "gathered"
    shape = heads, kv_heads, d, size
    return next(name for name in READERS if name == "gathered" or _agrees(name, device, dtype, *shape))


def _agrees(name: str, device: str, dtype: torch.dtype, heads: int, kv_heads: int, d: int, size: int) -> bool:
    """Three rows of one, two and three pages, the last ones not full, in a shuffled pool of eight."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(device, dtype)  # noqa: E731
    q, keys, values = draw(3, heads, d), draw(8, size, kv_heads, d), draw(8, size, kv_heads, d)
    pages = torch.tensor([[5, 0, 0], [2, 7, 0], [1, 6, 3]], dtype=torch.int32, device=device)
    lengths = torch.tensor([1, size + size // 3 + 1, 3 * size - 1], dtype=torch.int32, device=device)
    table = Table(pages, lengths, 3 * size - 1, size)
    try:
        found = READERS[name](q, keys, values, table)
    except torch.OutOfMemoryError:  # says nothing of the kernel, and the answer is remembered
        raise
    except (RuntimeError, IndexError, TypeError, ValueError, ImportError):
        return False  # so torch says that it has no such kernel
    return torch.allclose(found.float(), gathered(q.float(), keys.float(), values.float(), table), atol=2e-2)


class PagedAttention:
    """Attention of one step, for the rows of all ``caches``, which share a pool. Made anew for each step."""

    def __init__(self, caches: list[PagedCache], heads: int) -> None:
        self.pages = caches[0].pages
        size, device = self.pages.size, self.pages.layers[0].device
        last = np.concatenate([cache.last for cache in caches])
        longest = int(last.max()) + 1
        width = -(-longest // size)
        pages = np.concatenate([_columns(cache.table, width) for cache in caches])
        places = pages[np.arange(len(last)), last // size] * size + last % size
        self.places = torch.from_numpy(places).to(device)
        lengths = torch.from_numpy((last + 1).astype(np.int32)).to(device)
        self.table = Table(torch.from_numpy(pages.astype(np.int32)).to(device), lengths, longest, size)
        first = self.pages.layers[0]
        self.dtype = first.dtype
        self.read = READERS[best_reader(str(device), first.dtype, heads, first.shape[3], first.shape[4], size)]

    def __call__(self, layer: int, turned: Tensor, value: Tensor) -> Tensor:
        """turned (R, k, r + 1, d): queries, then the key, rotated; value (R, k, d) -> (R, q * d)"""
        keys, values = self.pages.layers[layer]
        keys.flatten(0, 1)[self.places] = turned[:, :, -1]
        values.flatten(0, 1)[self.places] = value
        return self.read(turned[:, :, :-1].flatten(1, 2), keys, values, self.table).flatten(1)


def _columns(table: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int64]:
    """So many of them, with zeros where it has fewer."""
    return np.pad(table[:, :width], ((0, 0), (0, max(0, width - table.shape[1]))))
