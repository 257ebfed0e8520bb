"""The paged cache: the same texts as without pages, on a CPU and, where there is one, on a GPU through varlen_attn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from generate_cases import chat_folder, decoder, mixed, prompts, shape
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fledge.core.errors import ConfigError
from fledge.generate.cohort import Group
from fledge.generate.engine import Completion, Engine, Request
from fledge.generate.loaded import load
from fledge.generate.page_reading import (
    READERS,
    PagedAttention,
    Table,
    _agrees,
    best_reader,
    gathered,
)
from fledge.generate.pages import PagedCache, Pages, pages_at_most, pages_at_once
from fledge.generate.sampling import Sampling

REQUESTS = mixed(17)


def same(found: list[list[Completion]], expected: list[list[Completion]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert [c.tokens for c in ours] == [c.tokens for c in theirs]
        assert [c.reason for c in ours] == [c.reason for c in theirs]
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(torch.tensor(a.logp), torch.tensor(b.logp), atol=1e-4, rtol=0)
            torch.testing.assert_close(torch.tensor(a.model_logp), torch.tensor(b.model_logp), atol=1e-4, rtol=0)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pages]]:
    """The pools that engines have made, of which every page must have been given back once in the end."""
    made: list[Pages] = []
    make = Engine._pool

    def noted(self: Engine, groups: Iterable[Group], dtype: torch.dtype) -> Pages:
        made.append(make(self, groups, dtype))
        return made[-1]

    monkeypatch.setattr(Engine, "_pool", noted)
    yield made
    assert made
    for pages in made:
        assert sorted(pages._free) == list(range(pages.count))
        assert not any(pages._users)


@pytest.mark.parametrize("page", [1, 4, 7, 256])
def test_the_same_texts_as_without_pages(page: int, pools: list[Pages]) -> None:
    """Prompts that end within a page and at its end, shared by samples or not; waves, rows that leave early."""
    model = decoder(shape())
    expected = Engine((model, None), max_rows=8).generate(REQUESTS)
    same(Engine((model, None), max_rows=8, paged=True, page=page).generate(REQUESTS), expected)


def test_pages_run_out(pools: list[Pages]) -> None:
    """A pool that holds the longest group, and little more: samples are withdrawn, begin anew, and end the same; what
    had ended before is not told twice."""
    model = decoder(shape())
    expected = Engine((model, None), max_rows=8).generate(REQUESTS)
    small = Engine((model, None), max_rows=8, max_tokens=1, paged=True, page=4)
    finished: list[int] = []
    same(small.generate(REQUESTS, finished.append), expected)
    assert sum(finished) == sum(request.n for request in REQUESTS)

    # sixteen short prompts are let in together, and cannot all become long
    many = [Request(p[:5], n=2, sampling=Sampling(max_new_tokens=60, seed=i)) for i, p in enumerate(prompts(16))]
    tight = Engine((model, None), max_rows=32, max_tokens=600, paged=True, page=4)
    again = 0
    most = 0
    for ended, cohorts in tight._steps(many):
        most = max(most, sum(cohort.live for cohort in cohorts))
        again += not ended and any(len(c.origin) > c.live + sum(map(bool, c.length)) for c in cohorts)
    assert most > 10, "more at once than 600 tokens would hold at their full length"
    assert again, "some were withdrawn"
    same(tight.generate(many), Engine((model, None), max_rows=32).generate(many))


def test_rows_that_ended_make_room_before_others_are_withdrawn(pools: list[Pages]) -> None:
    """The pool holds the eight long answers and nothing more; a short one that was admitted with them has ended, and is
    too few to be dropped for its own sake."""
    model = decoder(shape())
    short = Request([3, 4, 5], sampling=Sampling(max_new_tokens=2, seed=1), stop_ids=())
    long = Request([3, 4, 5, 6], n=8, sampling=Sampling(max_new_tokens=40, seed=2), stop_ids=())
    engine = Engine((model, None), max_rows=16, max_tokens=1, paged=True, page=4)
    steps = [[cohort.live for cohort in cohorts] for _, cohorts in engine._steps([short, long])]
    assert steps == [[9], *[[8]] * 38, [0]]
    same(engine.generate([short, long]), Engine((model, None), max_rows=16).generate([short, long]))


def test_rows_that_need_no_further_page_begin_together() -> None:
    """Eight short texts of one page each in a pool of eight."""
    requests = [Request([3, 4, 5], sampling=Sampling(max_new_tokens=9, seed=i), stop_ids=()) for i in range(8)]
    engine = Engine((decoder(shape()), None), max_rows=8, paged=True)
    assert [cohort.live for cohort in next(engine._steps(requests))[1]] == [8]


def test_a_pool_is_no_larger_than_what_runs_at_once_could_need(pools: list[Pages]) -> None:
    model = decoder(shape())
    requests = [Request(p[:9], sampling=Sampling(max_new_tokens=9, seed=i)) for i, p in enumerate(prompts(64))]
    same(
        Engine((model, None), max_rows=7, paged=True, page=4).generate(requests),
        Engine((model, None), max_rows=7).generate(requests),
    )
    assert pools[0].count == (7 + 1) * 5, "rows, an eighth more that have ended, and five pages of each"


def test_bf16_weights_on_a_cpu() -> None:
    """Keys and values are float32 there, in pages or not."""
    model = decoder(shape()).bfloat16()
    requests = [Request(p, n=2, sampling=Sampling(max_new_tokens=20, seed=i)) for i, p in enumerate(prompts(3))]
    same(Engine((model, None), paged=True, page=8).generate(requests), Engine((model, None)).generate(requests))


def test_a_reply_is_streamed(tmp_path: Path) -> None:
    chat_folder(tmp_path, {})
    model, asked = load(tmp_path), [{"role": "user", "content": "你好"}]
    expected = Engine(model).chat(asked, max_new_tokens=40, seed=3, temperature=1.0)
    pieces = list(Engine(model, paged=True, page=4).stream(asked, max_new_tokens=40, seed=3, temperature=1.0))
    assert len(pieces) > 1
    assert "".join(pieces) == expected


def test_a_system_message_is_computed_once() -> None:
    model = decoder(shape())
    system = [3 + i * 7 % 120 for i in range(80)]
    requests = [Request(system + p, n=2, sampling=Sampling(max_new_tokens=9, seed=3)) for p in prompts(9, longest=20)]
    expected = Engine((model, None), max_rows=18).generate(requests)
    for chunk in (4096, 100):
        same(Engine((model, None), max_rows=18, chunk=chunk, paged=True, page=8).generate(requests), expected)


def test_memory_grows_with_the_rows_and_is_given_back() -> None:
    """One prompt of 120 tokens, eight samples, up to 100 tokens each, page 16: the seven full pages are there once."""
    engine = Engine((decoder(shape()), None), max_rows=8, paged=True, page=16)
    request = Request([3 + i % 100 for i in range(120)], n=8, sampling=Sampling(max_new_tokens=100), stop_ids=())
    sizes = [cohorts[0].cache.size for _, cohorts in engine._steps([request])]
    assert sizes[0] == 16 * pages_at_once(120, 8, 16) == 16 * (7 + 8)
    assert sizes[98] == 16 * pages_at_most(120, 8, 99, 16) == 16 * (7 + 8 * 7)
    assert sizes == sorted(sizes)

    pages = Pages(shape(), 20, 16, torch.float32, "cpu")
    cache = PagedCache(pages, [40, 16], [0, 0, 0, 1], [5, 5, 5, 20])
    assert pages.free == 20 - (2 + 3) - 1
    assert cache.wanted == 1, "the prompt of 16 has filled its page"
    cache.grow()
    assert (cache.wanted, pages.free) == (0, 13)
    cache.keep(torch.tensor([1, 3]))
    assert pages.free == 15, "two pages of their own; the full ones are read by a third row"
    cache.used = 9  # four more than the first row may have: it stays where it ended
    assert cache.last.tolist() == [44, 25]
    cache.keep(torch.tensor([1]))
    assert pages.free == 18
    cache.keep(torch.zeros(0, dtype=torch.int64))
    assert pages.free == 20


def test_reading_is_attention() -> None:
    """Rows over shuffled pages against plain softmax over each row's own tokens; and a step writes before it reads."""
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 9, 4, 2, 8, generator=generator)
    q = torch.randn(3, 6, 8, generator=generator)
    table = Table(torch.tensor([[4, 0, 0], [8, 2, 0], [1, 7, 3]], dtype=torch.int32), torch.tensor([2, 8, 9]), 9, 4)
    found = gathered(q, keys, values, table)
    for row in range(3):
        k, v = (x[table.pages[row].long()].flatten(0, 1)[: table.lengths[row]] for x in (keys, values))
        for head in range(6):
            weights = (k[:, head // 3] @ q[row, head] * 8**-0.5).softmax(0)
            torch.testing.assert_close(found[row, head], weights @ v[:, head // 3])

    pages = Pages(shape(), 6, 4, torch.float32, "cpu")
    cache = PagedCache(pages, [3, 4], [0, 1], [4, 4])
    pages.layers[0].normal_(generator=generator)
    cache.grow()
    turned, value = torch.randn(2, 2, 4, 8, generator=generator), torch.randn(2, 2, 8, generator=generator)
    out = PagedAttention([cache], heads=6)(0, turned, value)
    at = torch.tensor(cache.held(1))
    torch.testing.assert_close(pages.layers[0][0, at[1], 0], turned[1, :, -1])
    k, v = pages.layers[0][:, at].flatten(1, 2)[:, :5]
    weights = torch.einsum("hrd,thd->hrt", turned[1, :, :-1], k).mul(8**-0.5).softmax(-1)
    torch.testing.assert_close(out[1], torch.einsum("hrt,thd->hrd", weights, v).flatten())


@pytest.mark.parametrize("size", [1, 2, 16])
def test_a_reader_is_tried_before_it_is_used(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes row by row is right; one that misses a token, or mistakes heads or pages, is not."""

    def by_row(q: Tensor, keys: Tensor, values: Tensor, table: Table) -> Tensor:
        rows = []
        for query, pages, length in zip(q, table.pages.long(), table.lengths.tolist(), strict=True):
            assert length <= size * len(pages)
            k, v = (x[pages].flatten(0, 1)[:length].repeat_interleave(3, 1) for x in (keys, values))
            rows.append(torch.einsum("ht,thd->hd", (torch.einsum("hd,thd->ht", query, k) * 8**-0.5).softmax(-1), v))
        return torch.stack(rows)

    monkeypatch.setitem(READERS, "by row", by_row)
    monkeypatch.setitem(READERS, "a token less", lambda q, k, v, t: by_row(q, k, v, replace(t, lengths=t.lengths - 1)))
    monkeypatch.setitem(READERS, "other heads", lambda q, k, v, t: by_row(q.roll(1, 1), k, v, t).roll(-1, 1))
    monkeypatch.setitem(READERS, "other pages", lambda q, k, v, t: by_row(q, k, v, replace(t, pages=t.pages.flip(0))))
    found = {name: _agrees(name, "cpu", torch.float32, 6, 2, 8, size) for name in READERS}
    # what torch has no kernel for on this device is no error
    wrong = ("table", "table and ends", "side by side", "a token less", "other heads", "other pages")
    assert found == {"gathered": True, "by row": True, **dict.fromkeys(wrong, False)}

    def full(*_: object) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setitem(READERS, "full", full)
    with pytest.raises(torch.OutOfMemoryError):  # not a no, which would be remembered
        _agrees("full", "cpu", torch.float32, 6, 2, 8, size)


def test_rows_side_by_side() -> None:
    table = Table(torch.tensor([[4, 0], [2, 1]], dtype=torch.int32), torch.tensor([2, 5], dtype=torch.int32), 5, 4)
    assert table.places.tolist() == [16, 17, 8, 9, 10, 11, 4]
    assert (table.ends.tolist(), table.ends.dtype) == ([0, 2, 7], torch.int32)
    assert (table.queries.tolist(), table.queries.dtype) == ([0, 1, 2], torch.int32)


@pytest.mark.parametrize("name", ["table", "table and ends"])
def test_varlen_attn_takes_the_table(name: str) -> None:
    """Names and shapes only: its kernels are for CUDA."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    if "block_table" not in signature(varlen.varlen_attn).parameters:
        pytest.skip("this torch reads no tables")
    with FakeTensorMode():
        pool = torch.empty(8, 256, 2, 64, dtype=torch.bfloat16)
        table = Table(torch.zeros(3, 2, dtype=torch.int32), torch.zeros(3, dtype=torch.int32), 300, 256)
        out = READERS[name](torch.empty(3, 14, 64, dtype=torch.bfloat16), pool, pool, table)
        assert out.shape == (3, 14, 64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen_attn needs CUDA")
@pytest.mark.parametrize("paged", [True, None])
def test_on_cuda_the_log_probabilities_of_the_other_cache(paged: bool | None) -> None:
    """bf16 rounds: texts may part ways, so the log-probabilities of the first tokens are compared, and of all of them
    where the texts agree."""
    model = decoder(shape()).bfloat16().cuda()
    requests = [Request(p, n=2, sampling=Sampling(max_new_tokens=40, seed=i)) for i, p in enumerate(prompts(20))]
    engine = Engine((model, None), paged=paged)
    expected = Engine((model, None), paged=False).generate(requests)
    agree = 0
    for ours, theirs in zip(engine.generate(requests), expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            length = next((i for i in range(40) if a.tokens[i] != b.tokens[i]), 40)
            agree += length
            torch.testing.assert_close(
                torch.tensor(a.model_logp[:length]), torch.tensor(b.model_logp[:length]), atol=0.1, rtol=0
            )
    assert agree > 400, "half of the tokens"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen_attn needs CUDA")
def test_on_cuda_pages_are_read_by_varlen_attn() -> None:
    assert best_reader("cuda", torch.bfloat16, 14, 2, 64, 256) != "gathered"
    assert best_reader("cuda", torch.float32, 14, 2, 64, 256) == "gathered", "its kernels are for half precision"


def test_settings_that_do_not_go_together() -> None:
    model = decoder(shape())
    assert not Engine((model, None)).paged, "on a CPU nothing reads pages faster than blocks"
    with pytest.raises(ConfigError, match="page=0"):
        Engine((model, None), page=0)
    with pytest.raises(ConfigError, match="read no pages"):
        Engine((model, None), compile=True, paged=True)
