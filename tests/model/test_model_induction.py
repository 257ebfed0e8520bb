"""The planted heads do what they are said to do, before any training; shapes without room for them are refused."""

import pytest
import torch

from fledge.core.errors import ConfigError
from fledge.model import induction
from fledge.model.attention import PackedAttention, make_plan
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary

SHAPE = DecoderConfig(
    vocab_size=500, hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, max_position_embeddings=256,
)  # fmt: skip


def _decoder(planted: bool) -> Decoder:
    decoder = Decoder(SHAPE)
    decoder.initialise(0)
    if planted:
        induction.plant(decoder, 0)
    return decoder


@torch.no_grad()
def _repeat_gain(decoder: Decoder) -> float:
    """How much likelier, in nats a token, 40 random tokens are the second time."""
    gains = []
    for seed in range(8):
        row = torch.randint(0, SHAPE.vocab_size, (40,), generator=torch.Generator().manual_seed(seed))
        tokens = torch.cat([row, row])
        attend = PackedAttention(make_plan(Layout.of([80])), Rotary(SHAPE.head_dim, SHAPE.rope_theta), torch.float32)
        logits = decoder(tokens, attend) @ decoder.output_weight.T
        nll = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")
        gains.append(float(nll[:39].mean() - nll[40:].mean()))
    return sum(gains) / len(gains)


def test_a_planted_model_copies_what_it_has_seen_before() -> None:
    assert abs(_repeat_gain(_decoder(False))) < 0.05
    assert _repeat_gain(_decoder(True)) > 0.12


@torch.no_grad()
def test_the_first_head_attends_to_the_token_before() -> None:
    attention = _decoder(True).model.layers[0].self_attn
    hidden = torch.randn(60, SHAPE.hidden_size, generator=torch.Generator().manual_seed(1))
    q, k = attention.q_proj(hidden)[:, : SHAPE.head_dim], attention.k_proj(hidden)[:, : SHAPE.head_dim]
    attend = PackedAttention(make_plan(Layout.of([60])), Rotary(SHAPE.head_dim, SHAPE.rope_theta), torch.float32)
    places = torch.nn.functional.one_hot(torch.arange(60), 64).float()  # what is fetched tells where from
    weights = torch.cat(
        [attend(0, q[:, None], k[:, None], part[:, None]) for part in places.split(SHAPE.head_dim, 1)], 2
    )[:, 0]
    assert float(weights[torch.arange(1, 60), torch.arange(59)].min()) > 0.9


def test_the_same_seed_gives_the_same_weights() -> None:
    a, b = _decoder(True).state_dict(), _decoder(True).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 1}, "two layers"),
        ({"hidden_size": 128}, "three heads"),
        ({"architecture": "LlamaForCausalLM"}, "biases"),
    ],
)
def test_shapes_without_room_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        induction.plant(Decoder(SHAPE.model_copy(update=change)), 0)
