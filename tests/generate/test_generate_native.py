"""The step in loops of our own against the step in torch, which test_generate_engine.py holds against the trainer."""

from __future__ import annotations

import shutil
from itertools import accumulate, chain
from pathlib import Path

import pytest
import torch
from generate_cases import GREEDY, decoder, packed_logits, prompts, shape

from fledge.core.errors import ConfigError
from fledge.core.native import small_products
from fledge.generate.engine import Engine, Request
from fledge.generate.native import FEW, NativeStep, library
from fledge.generate.sampling import Sampling
from fledge.generate.step import Step
from fledge.model.config import DecoderConfig
from fledge.model.rotary import Rotary

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here to build the loops with")

# head sizes of whole vectors and not, more query heads than registers, one key head, no biases, untied
SHAPES = [
    shape(),
    shape(architecture="LlamaForCausalLM").model_copy(update={"tie_word_embeddings": False}),
    shape().model_copy(update={"hidden_size": 50, "intermediate_size": 37, "head_dim": 20}),
    shape().model_copy(update={"num_attention_heads": 9, "num_key_value_heads": 1, "head_dim": 64}),
    shape().model_copy(update={"head_dim": 80}),
]


def engines(config: DecoderConfig, dtype: torch.dtype = torch.float32, rows: int = 64) -> tuple[Engine, Engine]:
    model = decoder(config).to(dtype)
    return Engine((model, None), max_rows=rows), Engine((model, None), max_rows=rows, compile=True)


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("count", [1, 4, 11])
def test_same_completions(config: DecoderConfig, samples: int, count: int) -> None:
    """One row, few, and many; prompts of their own and shared; rows that leave, and cohorts that follow. Greedy rows
    may part where two tokens are as likely."""
    kinds = [Sampling(max_new_tokens=40, seed=2), Sampling(max_new_tokens=21, seed=3, temperature=0.8), GREEDY]
    requests = [Request(p, samples, kinds[i % 3], stop_ids=(1, 2)) for i, p in enumerate(prompts(count))]
    for rows in (5, 64):
        theirs, ours = (list(chain(*engine.generate(requests))) for engine in engines(config, rows=rows))
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            request = requests[index // samples]
            same = list(accumulate((a == b for a, b in zip(one.tokens, other.tokens, strict=False)), min)).count(True)
            if request.sampling is GREEDY and same < len(one.tokens):
                logits = packed_logits(decoder(config), [*request.prompt, *one.tokens[:same]])[-1]
                assert abs(float(logits[one.tokens[same]] - logits[other.tokens[same]])) < 1e-4, "not a tie"
            else:
                assert (one.tokens, one.reason) == (other.tokens, other.reason)
            for mine, other_s in ((one.model_logp, other.model_logp), (one.logp, other.logp)):
                torch.testing.assert_close(torch.tensor(mine[:same]), torch.tensor(other_s[:same]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("count", [2, FEW + 5])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_bf16_weights(size: int, samples: int, count: int, compile: bool) -> None:
    """Within what bf16 rounds, against the same weights in float32; with few rows torch rounds only the prompt."""
    config = shape().model_copy(update={"head_dim": size, "num_attention_heads": 3, "num_key_value_heads": 1})
    model = decoder(config).bfloat16()
    engine = Engine((model, None), compile=compile)
    exact = decoder(config).bfloat16().float()
    asked = [Request(p, samples, Sampling(max_new_tokens=40)) for p in prompts(count)]
    worst = 0.0
    for request, answers in zip(asked, engine.generate(asked), strict=True):
        for got in answers:
            expected = packed_logits(exact, [*request.prompt, *got.tokens]).log_softmax(-1)
            expected = expected[len(request.prompt) - 1 : -1]
            expected = expected.gather(1, torch.tensor(got.tokens)[:, None])[:, 0]
            worst = max(worst, (expected - torch.tensor(got.model_logp)).abs().max().item())
    assert 0 < worst < 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same(dtype: torch.dtype) -> None:
    """Few rows and many, with sizes that are no multiple of anything."""
    if not small_products():
        pytest.skip("without AVX-512 prompts go through torch, whose sums may depend on the number of threads")
    config = shape().model_copy(update={"hidden_size": 50, "intermediate_size": 37, "head_dim": 20})
    model, threads, results = decoder(config).to(dtype), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for rows in (3, FEW + 9):
                asked = [Request(p, 1, Sampling(max_new_tokens=12)) for p in prompts(rows)]
                results.append([a[0].model_logp for a in Engine((model, None), compile=True).generate(asked)])
    finally:
        torch.set_num_threads(threads)
    for other in range(2, 6):
        assert results[other] == results[other % 2]


def test_without_small_products_many_rows_go_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert NativeStep.serves(torch.float32, FEW)
    assert not NativeStep.serves(torch.float32, FEW + 1)
    engine = Engine((decoder(shape()), None), compile=True)
    assert len(engine.generate([Request(p, sampling=GREEDY) for p in prompts(FEW + 2)])) == FEW + 2


def test_ids_without_a_token_count_as_in_torch() -> None:
    model = decoder(shape(vocab_size=131))
    rotary = Rotary(model.config.head_dim, model.config.rope_theta)
    hidden = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for usable in (131, 100):
            ours, rest = NativeStep(model, rotary, 8, 4).logits(hidden, usable)
            expected, expected_rest = Step(model, rotary, 8, 4).logits(hidden, usable)
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
            if usable == 131:
                assert rest is expected_rest is None
            else:
                torch.testing.assert_close(rest, expected_rest, atol=1e-5, rtol=1e-5)


def test_other_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"not torch\.float16"):
        Engine((decoder(shape()).half(), None), compile=True)
    engine = Engine((decoder(shape()).half(), None), compile=None)
    assert not engine.compile


def test_what_cannot_be_built_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        monkeypatch.setenv("CXX", "false")
        with pytest.raises(ConfigError, match="leave compile out"):
            Engine((decoder(shape()), None), compile=True)
        assert not list((tmp_path / "fledge").glob("*.so"))
        monkeypatch.delenv("CXX")
        library.cache_clear()
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ConfigError, match=r"install g.*leave compile out"):
            Engine((decoder(shape()), None), compile=True)
        for compile in (False, None):  # without it all is as ever
            Engine((decoder(shape()), None), compile=compile).generate([Request([3], sampling=GREEDY)])
    finally:
        library.cache_clear()
