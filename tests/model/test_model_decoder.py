"""The decoder: vectors of the specification, causality, packing, parity with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_cases import attend, config, decoder, logits

from fledge.model.config import DecoderConfig
from fledge.model.decoder import FeedForward, RMSNorm
from fledge.model.hf import save_decoder
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary, rotate
from fledge.model.sizes import NAMES, recommended, size

SHAPES = {
    "qwen2": config(),
    "qwen2 untied, all heads": config(tie_word_embeddings=False, num_key_value_heads=6),
    "qwen2 wide heads, theta 1e6": config(head_dim=16, rope_theta=1e6, rms_norm_eps=1e-5),
    "llama": config("LlamaForCausalLM"),
    "llama untied": config("LlamaForCausalLM", tie_word_embeddings=False, num_attention_heads=4),
}


# ------------------------------------------------------------------------------ vectors (SPEC N, A1-A4)


@pytest.mark.parametrize(
    ("name", "total", "body"),
    [
        ("0.5b", 494_032_768, 357_898_112),
        ("1.5b", 1_543_714_304, 1_310_340_608),
        ("7b", 7_615_616_512, 6_525_621_760),
        ("72b", 72_706_203_648, 70_214_787_072),
        ("qwen1-1.8b", 1_836_828_672, None),
        ("qwen1-7b", 7_721_324_544, None),
        ("qwen1-14b", 14_167_290_880, None),
        ("ct-llm-2b", 1_876_559_872, 1_619_134_464),
    ],
)
def test_a1_published_sizes_have_the_published_number_of_parameters(name: str, total: int, body: int | None) -> None:
    assert size(name).parameters == total
    if body is not None:
        assert size(name).body_parameters == body


def test_a1_ct_llm_untied() -> None:
    untied = size("ct-llm-2b").model_copy(update={"tie_word_embeddings": False})
    assert untied.parameters == 2_133_985_280


@pytest.mark.parametrize("name", SHAPES)
def test_counted_parameters_are_the_decoders(name: str) -> None:
    assert sum(p.numel() for p in decoder(SHAPES[name]).parameters()) == SHAPES[name].parameters


def test_a2_rms_norm() -> None:
    for dtype in (torch.float32, torch.float64):
        got = RMSNorm(4, 1e-6)(torch.tensor([1.0, 2, 3, 4], dtype=dtype))
        expected = torch.tensor([0.365148, 0.730297, 1.095445, 1.460593])
        torch.testing.assert_close(got.float(), expected, atol=1e-6, rtol=0)


def test_a2_rms_norm_in_bf16_is_cast_before_it_is_scaled() -> None:
    norm = RMSNorm(64, 1e-6).bfloat16()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.3, 3, 64))
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
    assert torch.equal(norm(x), norm.weight * y.bfloat16())


def test_a3_rotary() -> None:
    cos, sin = Rotary(4, 1e4).tables(torch.tensor([3]), torch.float32)
    got = rotate(torch.tensor([[[1.0, 2, 3, 4]]]), cos, sin)[0, 0]
    torch.testing.assert_close(got, torch.tensor([-1.413353, 1.879118, -2.828857, 4.058191]), atol=2e-6, rtol=0)


def test_a4_swiglu() -> None:
    got = F.silu(torch.tensor([1.0, -1.0, 2.0]))
    torch.testing.assert_close(got, torch.tensor([0.731059, -0.268941, 1.761594]), atol=1e-6, rtol=0)
    layer = FeedForward(config(hidden_size=2, intermediate_size=2))
    with torch.no_grad():
        layer.gate_proj.weight.copy_(torch.eye(2))
        layer.up_proj.weight.copy_(10 * torch.eye(2))
        layer.down_proj.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
        # silu on the gate branch: [0.731059 * 10, 1.761594 * 20], then mixed
        got = layer(torch.tensor([[1.0, 2.0]]))
    torch.testing.assert_close(got, torch.tensor([[7.31059 + 35.23188, 70.46376]]), atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------ behaviour


def test_causality() -> None:
    """Another token at place 7 changes the logits from 7 on, and none before."""
    model = decoder(config())
    tokens = torch.randint(0, 131, (20,), generator=torch.Generator().manual_seed(1))
    before = logits(model, tokens, Layout.of([20]))
    tokens[7] = (tokens[7] + 1) % 131
    after = logits(model, tokens, Layout.of([20]))
    torch.testing.assert_close(after[:7], before[:7], atol=1e-6, rtol=0)
    assert ((after[7:] - before[7:]).abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_embeddings_have_the_gradient_of_both_uses(dtype: torch.dtype) -> None:
    """Handed to a head, their gradient is put together in one place; it is what autograd adds up by itself."""
    model, layout = decoder(config()).to(dtype), Layout.of([9, 30])
    tokens = torch.randint(0, 20, (39,), generator=torch.Generator().manual_seed(2))  # many of them twice
    found = []
    for given in (True, False):
        model.zero_grad()
        if given:
            out = model(tokens, attend(layout, config(), dtype), lambda hidden, weight: hidden @ weight.T)
        else:
            out = model(tokens, attend(layout, config(), dtype)) @ model.output_weight.T
        out.float().square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) == len(list(model.parameters()))
    for ours, plain in zip(*found, strict=True):
        error = float((ours.double() - plain.double()).norm() / plain.double().norm())
        assert error < (1e-6 if dtype == torch.float32 else 1e-2)


def test_the_same_seed_makes_the_same_weights() -> None:
    a, b = decoder(config()), decoder(config(), seed=9)
    a.initialise(3)
    torch.randn(5)
    b.initialise(3)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    std = a.model.layers[0].self_attn.o_proj.weight.std().item()  # type: ignore[union-attr]
    assert std == pytest.approx(0.02 / 6**0.5, rel=0.1)


def test_every_size_has_settings_and_the_wrong_name_a_hint() -> None:
    from fledge.core.errors import ConfigError

    for name in NAMES:
        settings = recommended(name)
        assert settings["context"] <= size(name, 512).max_position_embeddings
        assert {"lr", "batch_tokens", "warmup", "betas", "weight_decay", "clip"} <= set(settings)
    with pytest.raises(ConfigError, match="did you mean 'fledgling'"):
        size("fledgeling", 512)
    with pytest.raises(ConfigError, match="give vocab_size"):
        size("fledgling")


# ------------------------------------------------------------------------- parity with transformers


def reference(shape: DecoderConfig, folder: Path) -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers")
    ours = decoder(shape)
    save_decoder(ours, folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    assert type(theirs).__name__ == shape.architecture
    return ours, theirs.eval()


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_transformers_on_one_document(name: str, tmp_path: Path) -> None:
    ours, theirs = reference(SHAPES[name], tmp_path)
    tokens = torch.randint(0, 131, (150,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
        got = logits(ours, tokens, Layout.of([150]))
    assert expected.std() > 0.3
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["qwen2", "llama untied"])
def test_packed_logits_equal_transformers_on_every_path_alone(name: str, tmp_path: Path) -> None:
    """Each segment with its ancestors, run alone as one row by transformers."""
    ours, theirs = reference(SHAPES[name], tmp_path)
    layout = Layout.of([20, 11, 7, 40, 9, 3, 130, 5], [-1, 0, 0, -1, -1, 4, 4, 5])
    tokens = torch.randint(0, 131, (layout.tokens,), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        got = logits(ours, tokens, layout)
        for s in range(layout.segments):
            path = torch.cat([_tokens_of(layout, tokens, t) for t in [*layout.ancestors(s), s]])
            expected = theirs(path[None]).logits[0, -int(layout.length[s]) :]
            torch.testing.assert_close(_tokens_of(layout, got, s), expected, atol=1e-5, rtol=1e-5)


def _tokens_of(layout: Layout, values: torch.Tensor, segment: int) -> torch.Tensor:
    return values[layout.start[segment] : layout.start[segment] + layout.length[segment]]


@pytest.mark.parametrize("name", ["qwen2", "llama untied"])
def test_gradients_equal_transformers(name: str, tmp_path: Path) -> None:
    """Two documents with a prompt in common, packed as a prompt with two children: the sum of both losses."""
    ours, theirs = reference(SHAPES[name], tmp_path)
    prompt, a, b = (torch.randint(0, 131, (n,), generator=torch.Generator().manual_seed(n)) for n in (20, 33, 12))
    loss = torch.zeros(())
    for child in (a, b):
        row = torch.cat([prompt, child])
        loss = loss + F.cross_entropy(theirs(row[None]).logits[0, len(prompt) - 1 : -1], child, reduction="sum")
    loss.backward()
    layout = Layout.of([20, 33, 12], [-1, 0, 0])
    tokens = torch.cat([prompt, a, b])
    out = logits(ours, tokens, layout)
    ours_loss = F.cross_entropy(out[torch.from_numpy(layout.source)[20:]], tokens[20:], reduction="sum")
    ours_loss.backward()
    torch.testing.assert_close(ours_loss, loss, atol=1e-4, rtol=1e-6)
    expected = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        difference = (parameter.grad - expected[key].grad).norm() / expected[key].grad.norm().clamp_min(1e-3)
        assert difference.item() < 1e-5, key
