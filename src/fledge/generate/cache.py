"""Keys and values of a cohort: requests that were admitted together and advance together.

A request's prompt is computed once; its samples share the prompt's keys. What a sample adds is its own part, whose
length is the same for all rows of a cohort, so that it needs no mask. Prompts differ in length: the shorter ones are
filled up, and a bias hides the filling. Where no prompt has more than one sample there is nothing to share: then a
row's prompt and its own part lie in one piece, and attention is one product with all of its keys instead of two.
All memory is taken once, when the cohort is admitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fledge.core.shapes import filled
from fledge.generate.pages import PagedCache
from fledge.model.attention import PackedAttention, make_plan
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary, rotate

SHARED = 32  # tokens at the beginning of all prompts from which on they are a segment of their own


class Cache:
    """P prompts, R rows with up to ``new`` own tokens each; L layers, k key heads of size d.

    ``own`` and ``prompt`` hold a tensor for each layer, (R*k, 2, T, d) and (P*k, 2, W, d): keys, then values. Keys are
    rotated. Where the cache is ``joined``, ``prompt`` is empty, T is W + new,
    and a row's prompt ends in column W - 1; else T is new, and a prompt begins in column 0.
    """

    def __init__(
        self, config: DecoderConfig, lengths: list[int], prompt_of: list[int], new: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.heads, d = config.num_key_value_heads, config.head_dim
        self.width = -(-max(lengths) // 8) * 8
        self.joined = len(lengths) == len(prompt_of)
        self.room = new
        layers = range(config.num_hidden_layers)
        take = lambda count, size: torch.empty(count * self.heads, 2, size, d, dtype=dtype, device=device)  # noqa: E731
        self.prompt = [] if self.joined else [take(len(lengths), self.width) for _ in layers]
        self.own = [take(len(prompt_of), new + self.width * self.joined) for _ in layers]
        for x in self.own if self.joined else self.prompt:
            x[:, :, : self.width].zero_()  # filling must be finite: its weight is 0, and 0 x NaN of fresh memory is NaN
        self.lengths = torch.tensor(lengths, device=device)
        self.used = 0  # own tokens of every row
        self.prompt_of = torch.tensor(prompt_of, device=device)
        self._arrange()

    @property
    def rows(self) -> int:
        return len(self.prompt_of)

    @property
    def size(self) -> int:
        """Tokens that it has memory for."""
        return self.width * len(self.lengths) + self.room * self.rows

    @property
    def positions(self) -> Tensor:
        """(R,) position of the token that is fed next."""
        return self.starts + self.used

    @property
    def column(self) -> int:
        """Of ``own``, where the next key goes."""
        return self.used + self.width * self.joined

    def _arrange(self) -> None:
        """Which slot of its prompt each row has. Prompts with fewer live rows than the fullest leave slots empty."""
        device = self.lengths.device
        self.starts = self.lengths[self.prompt_of]
        self.begins = self.width - self.starts if self.joined else torch.zeros_like(self.starts)  # columns of `own`
        counts = torch.bincount(self.prompt_of, minlength=len(self.lengths))
        self.slots = int(counts.max())
        order = self.prompt_of.argsort(stable=True)
        first = counts.cumsum(0) - counts
        self.slot = torch.empty_like(order)
        self.slot[order] = torch.arange(self.rows, device=device) - first[self.prompt_of[order]]
        self.place = self.prompt_of * self.slots + self.slot  # (R,) into (P * slots)
        total = len(self.lengths) * self.slots
        self.direct = total == self.rows and bool((self.place == torch.arange(self.rows, device=device)).all())
        self._hide()

    def _hide(self) -> None:
        """The bias over keys: (R*k, 1, T) where joined, (P*k, 1, W) else; None where there is no filling."""
        column = torch.arange(self.own[0].shape[2] if self.joined else self.width, device=self.lengths.device)
        if self.joined:
            hidden = column < self.begins[:, None]
        else:
            hidden = column >= self.lengths[:, None]
        bias = torch.zeros(hidden.shape, dtype=self.own[0].dtype, device=hidden.device)
        bias = bias.masked_fill(hidden, float("-inf")).repeat_interleave(self.heads, 0)[:, None]
        self.bias = bias if bool(hidden.any()) else None

    def places(self, prompts: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Of tokens at ``positions`` of ``prompts``: which are written (all), and where: (T, 2) prompt, column."""
        device = self.lengths.device
        at = torch.from_numpy(prompts).to(device)
        columns = torch.from_numpy(positions).to(device) + (self.width - self.lengths[at] if self.joined else 0)
        return torch.arange(len(at), device=device), torch.stack([at, columns], 1)

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """keys and values (T, k, d) of prompts, rotated, to T places."""
        into = (self.own if self.joined else self.prompt)[layer].unflatten(0, (-1, self.heads))
        prompts, columns = places.unbind(1)
        into[prompts, :, 0, columns] = keys.to(into.dtype)
        into[prompts, :, 1, columns] = values.to(into.dtype)

    def keep(self, rows: Tensor) -> Tensor:
        """Keep these rows (increasing) and drop the others, in place; prompts without rows go too.

        -> the kept rows in their new order: the last survivors move into the gaps, so that little is copied.
        """
        order = survivors(rows, self.rows)
        self.own = self._moved(self.own, order, self.column)
        prompt_of = self.prompt_of[order]
        prompts = survivors(torch.unique(prompt_of), len(self.lengths))
        self.prompt = self._moved(self.prompt, prompts, self.width)
        place = torch.empty_like(self.lengths)
        place[prompts] = torch.arange(len(prompts), device=place.device)
        self.prompt_of, self.lengths = place[prompt_of], self.lengths[prompts]
        self._arrange()
        return order

    def _moved(self, tensors: list[Tensor], order: Tensor, used: int) -> list[Tensor]:
        """Tensors (rows*k, 2, length, d): row i takes row order[i]; only the first ``used`` of the length matter."""
        gaps = (order != torch.arange(len(order), device=order.device)).nonzero()[:, 0]
        for x in tensors if len(gaps) else []:
            by_row = x.unflatten(0, (-1, self.heads))
            by_row[gaps, :, :, :used] = by_row[order[gaps], :, :, :used]
        return [x[: len(order) * self.heads] for x in tensors]


def survivors(keep: Tensor, size: int) -> Tensor:
    """Indices ``keep`` (increasing, of ``size``) in such an order that each stays, but the last ones fill the gaps."""
    count = len(keep)
    stays = torch.zeros(size, dtype=torch.bool, device=keep.device)
    stays[keep] = True
    order = torch.arange(count, device=keep.device)
    order[~stays[:count]] = keep[keep >= count]
    return order


class PromptAttention:
    """`Attend` over packed prompts that also writes their keys and values, rotated, into the cache."""

    def __init__(
        self, cache: Cache | PagedCache, rotary: Rotary, dtype: torch.dtype, layout: Layout, first: int, rows: int
    ) -> None:
        """The prompts ``first``, ``first + 1``... of the cache, each a segment of the layout, in a tensor of ``rows``
        tokens. Where they have a parent, its tokens are the beginning of each of them."""
        device = cache.lengths.device
        self.cache = cache
        self.attend = PackedAttention(make_plan(layout, device=device, rows=rows, dtype=dtype), rotary, dtype)
        own = np.arange(layout.tokens)
        prompts = layout.segment_of + first
        if shared := int(layout.length[0]) if (layout.parent >= 0).any() else 0:
            count = layout.segments - 1
            own = np.concatenate([np.tile(own[:shared], count), own[shared:]])
            prompts = np.concatenate([np.repeat(np.arange(count), shared) + first, prompts[shared:] - 1])
        which, self.places = cache.places(prompts, layout.positions[own])
        self.tokens = torch.from_numpy(own).to(device)[which]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rotated = rotate(k, self.attend.cos, self.attend.sin)
        self.cache.write(layer, self.places, rotated[self.tokens], v[self.tokens])
        return self.attend(layer, q, k, v)


def prefill(
    decoder: Decoder, cache: Cache | PagedCache, rotary: Rotary, prompts: Sequence[Sequence[int]], chunk: int
) -> Tensor:
    """Run the prompts, about ``chunk`` tokens at a time, into the cache. -> (P, h), hidden states of the last tokens

    What all prompts of a part begin with (a system message, examples) is computed once for them.
    """
    last, first = [], 0
    device, dtype = cache.lengths.device, decoder.output_weight.dtype
    while first < len(prompts):
        end, tokens = first + 1, len(prompts[first])
        while end < len(prompts) and tokens + len(prompts[end]) <= chunk:
            tokens += len(prompts[end])
            end += 1
        part = [np.asarray(prompt, np.int64) for prompt in prompts[first:end]]
        shared = common_beginning(part)
        pieces = [part[0][:shared], *(prompt[shared:] for prompt in part)] if shared else part
        lengths = [len(piece) for piece in pieces]
        row = filled(np.concatenate(pieces), device)
        layout = Layout.of(lengths, [-1] + [0] * len(part) if shared else None)
        hidden = decoder(
            torch.from_numpy(row).to(device), PromptAttention(cache, rotary, dtype, layout, first, len(row))
        )
        last.append(hidden[torch.from_numpy(np.cumsum(lengths)[bool(shared) :] - 1).to(device)])
        first = end
    return torch.cat(last)


def common_beginning(prompts: Sequence[npt.NDArray[np.int64]]) -> int:
    """Tokens with which all prompts begin, leaving at least one of each; 0 where they are too few to pay."""
    size = min(len(prompt) for prompt in prompts) - 1
    if len(prompts) < 2 or size < SHARED:
        return 0
    same = np.all([prompt[:size] == prompts[0][:size] for prompt in prompts], axis=0)
    size = size if same.all() else int(same.argmin())
    return size if size >= SHARED else 0
