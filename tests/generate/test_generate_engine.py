"""The engine against transformers, against the training forward, and against itself in other batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from generate_cases import GREEDY, decoder, mixed, one, packed_logits, prompts, shape

from fledge.core.errors import ConfigError, DataError
from fledge.generate.engine import Completion, Engine, Request
from fledge.generate.sampling import Sampling
from fledge.model.hf import save_decoder


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine((decoder(shape()), None), max_rows=8, chunk=100)


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "LlamaForCausalLM"])
def test_greedy_equals_transformers(architecture: str, tmp_path: Path) -> None:
    stops = tuple(range(1, 9))
    transformers = pytest.importorskip("transformers")
    # untied, or a model of random weights repeats its input
    model = decoder(shape(architecture=architecture).model_copy(update={"tie_word_embeddings": False}))
    save_decoder(model, tmp_path, {"eos_token_id": list(stops), "pad_token_id": 0})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    asked = prompts(14)
    requests = [Request(p, sampling=GREEDY, stop_ids=stops) for p in asked]
    got = Engine((model, None), max_rows=5, chunk=64).generate(requests)
    reasons = set()
    for prompt, (completion,) in zip(asked, got, strict=True):
        expected = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=64, do_sample=False
        )[0, len(prompt) :].tolist()
        assert completion.tokens == expected
        assert completion.reason == ("stop" if expected[-1] in stops else "length")
        assert len(set(expected)) > len(expected) // 10  # not one token over and over
        reasons.add(completion.reason)
    assert reasons == {"stop", "length"}


def test_greedy_with_penalty_and_filters_equals_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = decoder(shape())
    save_decoder(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    sampling = Sampling(temperature=0, repetition_penalty=1.3, max_new_tokens=40)
    for prompt, (completion,) in zip(
        prompts(4), Engine((model, None)).generate([Request(p, sampling=sampling) for p in prompts(4)]), strict=True
    ):
        expected = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=40, do_sample=False,
            repetition_penalty=1.3, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        assert completion.tokens == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_the_trainers(engine: Engine, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, max_new_tokens=30, seed=4)
    asked = prompts(6)
    for prompt, completions in zip(
        asked, engine.generate([Request(p, n=3, sampling=sampling, stop_ids=(1, 2)) for p in asked]), strict=True
    ):
        for completion in completions:
            _check_logp(engine, prompt, completion, temperature)
            # nothing is filtered: what was sampled is the model
            torch.testing.assert_close(torch.tensor(completion.logp), torch.tensor(completion.model_logp))


def _check_logp(engine: Engine, prompt: list[int], completion: Completion, temperature: float) -> None:
    row = prompt + completion.tokens
    expected = (packed_logits(engine.decoder, row) / temperature).log_softmax(-1)
    expected = expected[len(prompt) - 1 : -1].gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(completion.model_logp), expected, atol=1e-4, rtol=0)


def test_log_probability_under_the_filters(engine: Engine) -> None:
    """``logp`` belongs to what was sampled from, ``model_logp`` to the model at that temperature."""
    sampling = Sampling(temperature=0.8, top_k=4, repetition_penalty=1.2, max_new_tokens=12, seed=1)
    prompt = prompts(1)[0]
    completion = one(engine, Request(prompt, sampling=sampling))
    _check_logp(engine, prompt, completion, 0.8)
    for i, token in enumerate(completion.tokens):
        row = prompt + completion.tokens[:i]
        logits = packed_logits(engine.decoder, row)[-1]
        seen = torch.tensor(sorted(set(row)))
        logits[seen] = torch.where(logits[seen] > 0, logits[seen] / 1.2, logits[seen] * 1.2)
        values, ids = (logits / 0.8).topk(4)
        expected = values.log_softmax(-1)[ids.tolist().index(token)]
        assert completion.logp[i] == pytest.approx(expected.item(), abs=1e-4)


def test_alone_or_among_others_the_same(engine: Engine) -> None:
    """Greedy and sampled, filtered and not, waves of several sizes and prompts that leave early."""
    requests = mixed(11)
    together = engine.generate(requests)
    for other in (Engine((engine.decoder, None), max_rows=1), Engine((engine.decoder, None), max_rows=64)):
        apart = other.generate(requests)
        assert [[c.tokens for c in group] for group in together] == [[c.tokens for c in group] for group in apart]
        assert [[c.reason for c in group] for group in together] == [[c.reason for c in group] for group in apart]
    alone = [engine.generate([r])[0] for r in requests]
    assert [[c.tokens for c in group] for group in together] == [[c.tokens for c in group] for group in alone]


def test_samples_that_share_a_prompt_equal_separate_requests(engine: Engine) -> None:
    prompt = prompts(1)[0]
    sampling = Sampling(max_new_tokens=30, seed=11)
    (shared,) = engine.generate([Request(prompt, n=20, sampling=sampling, stop_ids=(1, 2))])  # more than max_rows
    separate = [one(engine, Request(prompt, sampling=sampling, stop_ids=(1, 2), first=i)) for i in range(20)]
    assert [c.tokens for c in shared] == [c.tokens for c in separate]
    for a, b in zip(shared, separate, strict=True):
        torch.testing.assert_close(torch.tensor(a.logp), torch.tensor(b.logp), atol=1e-4, rtol=0)
    assert len({tuple(c.tokens) for c in shared}) == 20
    other = engine.generate([Request(prompt, n=20, sampling=sampling.model_copy(update={"seed": 12}))])[0]
    assert {tuple(c.tokens) for c in other}.isdisjoint(tuple(c.tokens) for c in shared)


def test_first_tokens_follow_the_models_distribution() -> None:
    """Chi-square over 4,000 samples of one prompt: what comes out of the engine, not of the sampler alone."""
    model = decoder(shape(vocab_size=13))
    prompt = [3, 4, 5]
    (got,) = Engine((model, None), max_rows=500).generate(
        [Request(prompt, n=4000, sampling=Sampling(max_new_tokens=1, seed=2, temperature=1.5))]
    )
    expected = (packed_logits(model, prompt)[-1] / 1.5).softmax(-1) * 4000
    counts = torch.bincount(torch.tensor([c.tokens[0] for c in got]), minlength=13)
    keep = expected > 5
    statistic = ((counts - expected) ** 2 / expected)[keep].sum().item()
    assert keep.sum() >= 5
    assert statistic < 33  # 12 degrees of freedom: p = 0.001


def test_stop_token_is_kept_and_ends_the_text(engine: Engine) -> None:
    prompt = prompts(1)[0]
    free = one(engine, Request(prompt, sampling=GREEDY))
    stop = free.tokens[10]
    end = free.tokens.index(stop) + 1
    got = one(engine, Request(prompt, sampling=GREEDY, stop_ids=(0, stop)))
    assert (got.tokens, got.reason) == (free.tokens[:end], "stop")
    assert got.content == free.tokens[: end - 1]
    assert len(got.logp) == len(got.model_logp) == end
    cut = one(engine, Request(prompt, sampling=Sampling(temperature=0, max_new_tokens=end), stop_ids=(stop,)))
    assert cut.reason == "stop"  # both at once: it has ended


def test_context_is_the_limit() -> None:
    model = decoder(shape(context=32))
    engine = Engine((model, None))
    got = one(engine, Request([3] * 20, sampling=Sampling(max_new_tokens=100, seed=1)))
    assert (len(got.tokens), got.reason) == (12, "length")
    _check_logp(engine, [3] * 20, got, 1.0)
    with pytest.raises(DataError, match="request 1: the prompt has 32 tokens and leaves no room in the context of 32"):
        engine.generate([Request([3]), Request([3] * 32)])


def test_a_row_that_fills_the_context_waits_for_its_cohort() -> None:
    """One of twenty has finished: too few to compact, so its row is carried past the end of the context."""
    made = Engine((decoder(shape(context=64)), None))
    sampling = Sampling(max_new_tokens=40, seed=3)
    requests = [Request([5, 6, 7 + i], sampling=sampling, stop_ids=()) for i in range(19)]
    requests.append(Request([3 + i for i in range(60)], sampling=sampling, stop_ids=()))
    together = made.generate(requests)
    assert [len(group[0].tokens) for group in together] == [40] * 19 + [4]
    assert [group[0].tokens for group in together] == [one(made, request).tokens for request in requests]


def test_memory_bounds_what_runs_together(engine: Engine) -> None:
    requests = [Request(p, sampling=GREEDY, stop_ids=(1, 2)) for p in prompts(9)]
    small = Engine((engine.decoder, None), max_rows=8, max_tokens=300)
    assert [c[0].tokens for c in small.generate(requests)] == [c[0].tokens for c in engine.generate(requests)]


def test_progress_counts_every_completion(engine: Engine) -> None:
    finished: list[int] = []
    engine.generate([Request(p, n=3, sampling=GREEDY, stop_ids=(1, 2)) for p in prompts(7)], finished.append)
    assert sum(finished) == 21
    assert min(finished) > 0


def test_ids_without_a_token_are_never_drawn() -> None:
    """Rows that only pad the vocabulary: not drawn, but they count in the model's log-probability."""
    from generate_cases import tokenizer

    words = tokenizer()
    model = decoder(shape(vocab_size=words.vocab_size + 64))
    with torch.no_grad():
        model.model.embed_tokens.weight[words.vocab_size :] *= 3  # they would win often
    engine = Engine((model, words))
    for sampling in (GREEDY, Sampling(max_new_tokens=60), Sampling(max_new_tokens=60, top_p=0.9)):
        got = one(engine, Request([5, 6, 7], sampling=sampling, stop_ids=()))
        assert max(got.tokens) < words.vocab_size
        if not sampling.greedy:
            _check_logp(engine, [5, 6, 7], got, 1.0)
            assert max(a - b for a, b in zip(got.logp, got.model_logp, strict=True)) > 0.1


def test_bf16_weights_generate() -> None:
    model = decoder(shape()).bfloat16()
    got = Engine((model, None), max_rows=4).generate([Request(p, n=2, sampling=GREEDY) for p in prompts(5)])
    assert all(len(c.tokens) == 64 for group in got for c in group)
    assert all(group[0].tokens == group[1].tokens for group in got)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([]), "request 0: the prompt is empty"),
        (Request([3, 131]), r"a token id outside 0\.\.130"),
        (Request([3, -1]), r"a token id outside 0\.\.130"),
        (Request([3], n=0), "n=0"),
    ],
)
def test_requests_that_cannot_be_served(engine: Engine, request_: Request, message: str) -> None:
    with pytest.raises(DataError, match=message):
        engine.generate([request_])


def test_nothing_asked_nothing_done(engine: Engine) -> None:
    assert engine.generate([]) == []
    with pytest.raises(ConfigError, match="max_rows=0"):
        Engine((engine.decoder, None), max_rows=0)
