"""PPO's two losses on models: against autograd of the literal formulas, however the batch is cut."""

from __future__ import annotations

import pytest
import torch
from test_train_gradient import assert_same, with_replay
from torch import Tensor
from train_examples import experience

from fledge.model.attention import PackedAttention
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary
from fledge.model.scalar import ScalarDecoder
from fledge.stages.dialogues import WithReplay
from fledge.stages.ppo import Ppo
from fledge.train.batch import Example, empty_example, pack, single
from fledge.train.objective import Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

CLIP, VALUE_CLIP = 0.2, 0.15


def scalar_model(config: DecoderConfig) -> ScalarDecoder:
    decoder = ScalarDecoder(config)
    decoder.initialise(1)
    decoder.start_score("normal", 2)
    return decoder


def gradient(
    decoder: Decoder, objective: Objective, batches: list[list[Example]], module: str,
    dtype: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor], float]:  # fmt: skip
    trainee = Trainee(decoder, OptimizerConfig(lr=1.0), dtype)
    decoder.zero_grad(set_to_none=True)
    denominators = objective.denominators([e for batch in batches for e in batch])
    total = 0.0
    for batch in batches:
        loss, _, _ = trainee.loss(pack(batch), objective, denominators, module)
        loss.backward()
        trainee.collect()
        total += float(loss.detach())
    return {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}, total


def hidden_of(decoder: Decoder, tokens: Tensor) -> Tensor:
    """(L, h) of one text, alone."""
    batch = pack([single(tokens.numpy(), torch.zeros(len(tokens)).numpy())])
    rotary = Rotary(decoder.config.head_dim, decoder.config.rope_theta)
    return decoder(batch.tokens, PackedAttention(batch.plan, rotary, torch.float32))[: len(tokens)]


def literal(decoder: Decoder, examples: list[Example], module: str) -> Tensor:
    """The loss as it stands in the papers, answer by answer, on whole logits; the mean over all answers' tokens."""
    total, count = torch.zeros(()), 0
    for example in examples:
        prompt, *answers = example.segments
        for answer in answers:
            ids = torch.from_numpy(answer.tokens).long()
            text = torch.cat([torch.from_numpy(prompt.tokens).long(), ids])
            before = hidden_of(decoder, text)[len(prompt.tokens) - 1 : -1]  # the states before the answer's tokens
            old, advantage, old_value, returns = (
                torch.from_numpy(answer.columns[name]) for name in ("old", "advantage", "value", "return")
            )
            if module == "policy":
                logits = before @ decoder.output_weight.T
                logp = logits.log_softmax(-1)[torch.arange(len(ids)), ids]
                ratio = (logp - old).exp()
                held = torch.clamp(ratio, 1 - CLIP, 1 + CLIP)
                total = total - torch.min(ratio * advantage, held * advantage).sum()
            else:
                assert isinstance(decoder, ScalarDecoder)
                value = before @ decoder.score.weight[0]
                held = torch.max(torch.min(value, old_value + VALUE_CLIP), old_value - VALUE_CLIP)
                total = total + 0.5 * torch.max((value - returns) ** 2, (held - returns) ** 2).sum()
            count += len(ids)
    return total / count


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def models(request: pytest.FixtureRequest, tiny_decoder: Decoder) -> dict[str, Decoder]:
    config = tiny_decoder.config.model_copy(update={"tie_word_embeddings": request.param})
    policy = Decoder(config)
    policy.initialise(0)
    return {"policy": policy, "value": scalar_model(config)}


@pytest.mark.parametrize("module", ["policy", "value"])
def test_gradient_of_the_literal_formula(models: dict[str, Decoder], module: str) -> None:
    decoder, examples = models[module], experience()
    ours, loss = gradient(decoder, Ppo(CLIP, VALUE_CLIP), [examples], module)
    decoder.zero_grad(set_to_none=True)
    want = literal(decoder, examples, module)
    want.backward()
    assert loss == pytest.approx(float(want.detach()), rel=1e-5, abs=1e-6)
    assert_same({n: p.grad for n, p in decoder.named_parameters() if p.grad is not None}, ours)


@pytest.mark.parametrize("module", ["policy", "value"])
def test_some_tokens_are_clipped_and_some_are_not(tiny_decoder: Decoder, module: str) -> None:
    """Or the comparison above would prove nothing of the clip."""
    decoder = tiny_decoder if module == "policy" else scalar_model(tiny_decoder.config)
    trainee = Trainee(decoder, OptimizerConfig(lr=1.0))
    objective, examples = Ppo(CLIP, VALUE_CLIP), experience()
    _, _, metrics = trainee.loss(pack(examples), objective, objective.denominators(examples), module)
    total, count = metrics["clipped"]
    assert 0.1 < float(total) / count < 0.95


def test_one_gradient_of_the_value(tiny_decoder: Decoder) -> None:
    """Promise 3 for the other model of the loop, with text of the policy's in the batch, which it never sees."""
    decoder, objective = scalar_model(tiny_decoder.config), WithReplay(Ppo(CLIP, VALUE_CLIP), 0.5, "ptx")
    examples = experience()
    whole, loss = gradient(decoder, objective, [examples], "value")
    assert all(g.norm() > 0 for g in whole.values())
    for batches in (
        [examples[:1], examples[1:]],
        [examples[::-1]],
        [experience(shared=False)],
        [[empty_example()], examples],
    ):
        other, value = gradient(decoder, objective, batches, "value")
        assert_same(whole, other)
        assert value == pytest.approx(loss, rel=1e-5)
    assert [e.module for e in with_replay(examples, "ptx")[len(examples) :]] == ["policy"] * 3


@pytest.mark.parametrize("module", ["policy", "value"])
def test_bf16_gives_nearly_the_same_gradient(tiny_decoder: Decoder, module: str) -> None:
    decoder = tiny_decoder if module == "policy" else scalar_model(tiny_decoder.config)
    examples = experience(8)
    exact, _ = gradient(decoder, Ppo(CLIP, VALUE_CLIP), [examples], module)
    near, _ = gradient(decoder, Ppo(CLIP, VALUE_CLIP), [examples[:4], examples[4:]], module, torch.bfloat16)
    flat = [torch.cat([g[name].flatten() for name in sorted(exact)]) for g in (exact, near)]
    assert all(g.dtype == torch.float32 for g in near.values())
    assert torch.nn.functional.cosine_similarity(*flat, 0) > 0.97
