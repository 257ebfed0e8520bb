"""Keys and values in pages: memory is taken as rows grow, and given back as they leave.

A cohort of cache.py takes at once what its rows could ever need, which for long answers is mostly never used. Here a
row owns a list of pages from one pool, reads the full pages of its prompt together with the other samples of it, and
takes the next page when its last is full (PagedAttention, 2309.06180). On CUDA torch's ``varlen_attn`` reads the pages
through a table as they lie (page_reading.py); on a CPU they are gathered first, for comparing and not for speed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fledge.model.config import DecoderConfig

PAGE = 256  # tokens: the least that every paged kernel takes (Flash Attention 2; 3 takes any)


class Pages:
    """The pool: ``count`` pages of ``size`` tokens in each layer.

    ``layers`` holds (2, count, size, k, d) for each layer: keys, rotated, then values.
    """

    def __init__(
        self, config: DecoderConfig, count: int, size: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (2, count, size, config.num_key_value_heads, config.head_dim)
        # zeros: what a reader hides has weight 0, and 0 x NaN of fresh memory is NaN
        self.layers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self.size, self.count = size, count
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count

    @property
    def free(self) -> int:
        """Pages that nobody has."""
        return len(self._free)

    def take(self) -> int:
        """A page for one user. Raises IndexError where none is free: who takes has looked before."""
        page = self._free.pop()
        self._users[page] = 1
        return page

    def share(self, pages: Sequence[int]) -> None:
        """One more user of each."""
        for page in pages:
            self._users[page] += 1

    def give(self, pages: Sequence[int]) -> None:
        """One user less of each; a page without users is free again."""
        for page in pages:
            self._users[page] -= 1
            if not self._users[page]:
                self._free.append(page)


def pages_at_once(length: int, samples: int, size: int) -> int:
    """Pages that ``samples`` rows of a prompt of ``length`` tokens have when they begin: full ones are shared."""
    return length // size + samples * (length % size > 0)


def pages_at_most(length: int, samples: int, new: int, size: int) -> int:
    """The same when every row has its ``new`` tokens."""
    return length // size + samples * (-(-(length + new) // size) - length // size)


class PagedCache:
    """The rows of a cohort, as `Cache`: P prompts, R rows. Row r may have ``limits[r]`` own tokens.

    Which pages a row has is kept on the host, ``table`` (R, W), of which the first ``count`` (R,) count: W is what the
    longest row may need.
    """

    def __init__(self, pages: Pages, lengths: list[int], prompt_of: list[int], limits: list[int]) -> None:
        """Takes the pages of the prompts: `pages_at_once` for each. The rows of a prompt are neighbours."""
        self.pages = pages
        device = pages.layers[0].device
        self.used = 0  # own tokens of every row
        self.prompt_of = torch.tensor(prompt_of, device=device)
        self.lengths = torch.tensor(lengths, device=device)  # (P,)
        self.starts = self.lengths[self.prompt_of]
        self._samples = np.bincount(prompt_of, minlength=len(lengths))
        self._begin = np.array(lengths, np.int64)[prompt_of]
        self._end = self._begin + limits
        self.table = np.zeros((len(prompt_of), -(-int(self._end.max()) // pages.size)), np.int64)
        self.count = -(-self._begin // pages.size)
        self._take(lengths, prompt_of)

    def _take(self, lengths: list[int], prompt_of: list[int]) -> None:
        pages, size = self.pages, self.pages.size
        known: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompt_of):
            if prompt in known:
                pages.share(known[prompt])
            else:
                known[prompt] = [pages.take() for _ in range(lengths[prompt] // size)]
            own = [pages.take() for _ in range(lengths[prompt] % size > 0)]
            self.table[row, : self.count[row]] = known[prompt] + own

    @property
    def rows(self) -> int:
        return len(self.count)

    def held(self, row: int) -> list[int]:
        """Its pages, in order."""
        pages: list[int] = self.table[row, : self.count[row]].tolist()
        return pages

    @property
    def size(self) -> int:
        """Tokens that it has memory for."""
        return len({page for row in range(self.rows) for page in self.held(row)}) * self.pages.size

    @property
    def positions(self) -> Tensor:
        """(R,) position of the token that is fed next."""
        return self.starts + self.used

    @property
    def last(self) -> npt.NDArray[np.int64]:
        """(R,) where the next token is written. A row at its limit has ended and waits for the others to be dropped
        with: it writes its last place over and over."""
        return np.minimum(self._begin + self.used, self._end - 1)

    # ------------------------------------------------------------------------------------------ prompts

    def places(self, prompts: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Of tokens at ``positions`` of ``prompts``: which of them are written, and to which places of the pool. What
        lies in a prompt's last page, when it is not full, is written for each of its rows: they go on in it apart.
        Before any row leaves."""
        size = self.pages.size
        first = (self._samples.cumsum() - self._samples)[prompts]  # row of each token's prompt
        index = positions // size
        apart = index == self._begin[first] // size  # in the page that is not full
        times = np.where(apart, self._samples[prompts], 1)
        which = np.arange(len(times)).repeat(times)
        sample = np.arange(len(which)) - (times.cumsum() - times).repeat(times)
        into = self.table[first[which] + sample, index[which]] * size + positions[which] % size
        device = self.starts.device
        return torch.from_numpy(which).to(device), torch.from_numpy(into).to(device)

    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """keys and values (T, k, d), rotated, to T places."""
        flat = self.pages.layers[layer].flatten(1, 2)
        flat[0, places] = keys.to(flat.dtype)
        flat[1, places] = values.to(flat.dtype)

    # --------------------------------------------------------------------------------------------- rows

    @property
    def wanted(self) -> int:
        """Pages that its rows need for the next token."""
        return len(self._full())

    @property
    def growing(self) -> int:
        """Rows that may need a further page before they are at their limits."""
        return int((self._end > self.count * self.pages.size).sum())

    def _full(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.last // self.pages.size >= self.count)

    def grow(self) -> None:
        """Take the pages that are wanted."""
        for row in self._full():
            self.table[row, self.count[row]] = self.pages.take()
            self.count[row] += 1

    def release(self) -> None:
        """Give back all pages."""
        self.keep(torch.zeros(0, dtype=torch.int64, device=self.starts.device))

    def keep(self, rows: Tensor) -> Tensor:
        """Keep these rows (increasing) and give back the pages of the others. -> the kept rows, in their order"""
        kept = rows.tolist()
        for row in set(range(self.rows)).difference(kept):
            self.pages.give(self.held(row))
        self.table, self.count = self.table[kept], self.count[kept]
        self.prompt_of, self.starts = self.prompt_of[rows], self.starts[rows]
        self._begin, self._end = self._begin[kept], self._end[kept]
        return rows
