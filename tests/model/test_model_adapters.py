"""LoRA: the formula and its gradient, peft's files in and out, merging."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fledge.core.errors import ArtefactError
from fledge.model.adapters import (
    TARGETS,
    LoraConfig,
    adapters,
    add_adapters,
    load_adapters,
    merge,
    save_adapters,
    without_adapters,
)
from fledge.model.attention import PackedAttention
from fledge.model.config import DecoderConfig
from fledge.model.decoder import MANY, Decoder
from fledge.model.hf import load_decoder, save_decoder
from fledge.model.rotary import Rotary
from fledge.train.batch import Example, pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

CONFIGS = (LoraConfig(r=3, alpha=7), LoraConfig(r=4, alpha=5, rslora=True, targets=("q_proj", "down_proj")))


def decoder_of(tied: bool = True) -> Decoder:
    decoder = Decoder(
        DecoderConfig(
            vocab_size=97, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=4, initializer_range=0.3, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    decoder.initialise(0)
    return decoder


def trained(decoder: Decoder, config: LoraConfig) -> Decoder:
    """With adapters that do something."""
    add_adapters(decoder, config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in adapters(decoder).values():
            layer.lora_B.weight.copy_(torch.randn(layer.lora_B.weight.shape, generator=generator))
    return decoder


def documents(lengths: tuple[int, ...] = (9, 14)) -> list[Example]:
    generator = np.random.default_rng(3)
    return [single(generator.integers(0, 97, n), [0.0] + [1.0] * (n - 1)) for n in lengths]


def hidden(decoder: Decoder, lengths: tuple[int, ...] = (9, 14)) -> torch.Tensor:
    batch = pack(documents(lengths))
    rotary = Rotary(decoder.config.head_dim, decoder.config.rope_theta)
    with torch.no_grad():
        return decoder(batch.tokens, PackedAttention(batch.plan, rotary, torch.float32))


def test_new_adapters_change_nothing_and_are_of_the_seed() -> None:
    plain, one, again, other = (decoder_of() for _ in range(4))
    for made, seed in ((one, 5), (again, 5), (other, 6)):
        add_adapters(made, LoraConfig(), seed)
    assert torch.equal(hidden(plain), hidden(one))
    names = [name for name, p in one.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 7 * 2
    assert all(".lora_" in name for name in names)
    states = [made.state_dict() for made in (one, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in names)
    assert any(not torch.equal(states[0][name], states[2][name]) for name in names)
    drawn = one.get_submodule("model.layers.0.mlp.down_proj.lora_A").weight
    assert float(drawn.detach().abs().max()) <= 1 / math.sqrt(24)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("lengths", [(9, 14), (MANY, 40)])
def test_merged_is_the_same_model(config: LoraConfig, lengths: tuple[int, ...]) -> None:
    """Few tokens and many: projections of one input are computed together or apart."""
    plain = decoder_of()
    before = hidden(plain, lengths)
    decoder = trained(plain, config)
    after = hidden(decoder, lengths)
    assert float((after - before).abs().max()) > 0.1
    torch.testing.assert_close(hidden(merge(decoder), lengths), after, rtol=1e-4, atol=1e-5)
    assert torch.equal(hidden(without_adapters(decoder), lengths), before)
    name = "model.layers.1.mlp.down_proj"
    layer = adapters(decoder)[name]
    scale = config.alpha / (math.sqrt(config.r) if config.rslora else config.r)
    want = layer.weight + scale * layer.lora_B.weight @ layer.lora_A.weight
    torch.testing.assert_close(merge(decoder).state_dict()[f"{name}.weight"], want)


@pytest.mark.parametrize("config", CONFIGS)
def test_gradient_is_that_of_the_whole_weight(config: LoraConfig) -> None:
    """With W' = W + s·B A: dA = s·Bᵀ dW', dB = s·dW' Aᵀ, where dW' is the gradient of the merged model."""
    decoder = trained(decoder_of(), config)
    whole = merge(decoder).requires_grad_(True)
    examples, objective = documents(), Likelihood()
    losses = []
    for made in (decoder, whole):
        trainee = Trainee(made, OptimizerConfig(lr=1.0))
        loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    full = dict(whole.named_parameters())
    for name, layer in adapters(decoder).items():
        g, s = full[f"{name}.weight"].grad, layer.scale
        assert g is not None
        a, b = layer.lora_A.weight, layer.lora_B.weight
        for found, want in ((a.grad, s * b.T @ g), (b.grad, s * g @ a.T)):
            assert found is not None
            assert float((found - want).norm() / want.norm()) < 1e-5, name
        assert layer.weight.grad is None


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("tied", [True, False])
def test_peft_and_transformers_load_it_with_equal_logits(config: LoraConfig, tied: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed (pip install fledge[parity])")
    transformers = pytest.importorskip("transformers")
    decoder = decoder_of(tied)
    save_decoder(decoder, tmp_path / "base")
    save_adapters(trained(decoder, config), config, tmp_path / "base", tmp_path / "adapter")
    tokens = documents((12,))[0].segments[0].tokens
    ours = hidden_logits(decoder, tokens)
    by_peft = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    by_transformers = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    for model in (by_peft, by_transformers):
        with torch.no_grad():
            theirs = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0]
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden_logits(load_decoder(tmp_path / "adapter"), tokens), ours, rtol=1e-4, atol=1e-4)


def hidden_logits(decoder: Decoder, tokens: np.ndarray) -> torch.Tensor:
    batch = pack([single(tokens, np.zeros(len(tokens)))])
    rotary = Rotary(decoder.config.head_dim, decoder.config.rope_theta)
    with torch.no_grad():
        states = decoder(batch.tokens, PackedAttention(batch.plan, rotary, torch.float32))
        return (states @ decoder.output_weight.T)[: len(tokens)]


def test_what_peft_saves_is_read(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed (pip install fledge[parity])")
    transformers = pytest.importorskip("transformers")
    save_decoder(decoder_of(), tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=2, lora_alpha=9, target_modules=["v_proj", "up_proj"], init_lora_weights=False)
    theirs = peft.get_peft_model(model, settings)
    theirs.save_pretrained(tmp_path / "adapter")
    tokens = documents((12,))[0].segments[0].tokens
    with torch.no_grad():
        want = theirs(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0]
    torch.testing.assert_close(hidden_logits(load_decoder(tmp_path / "adapter"), tokens), want, rtol=1e-4, atol=1e-4)


def test_a_moved_run_is_found_again(tmp_path: Path) -> None:
    config, run = LoraConfig(r=2), tmp_path / "run"
    save_decoder(decoder_of(), run / "base")
    save_adapters(trained(decoder_of(), config), config, run / "base", run / "adapter")
    run.rename(tmp_path / "moved")
    assert load_decoder(tmp_path / "moved" / "adapter").config.vocab_size == 97
    (tmp_path / "moved" / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match=r"adapter_config.json: the adapters belong to .* no folder here"):
        load_decoder(tmp_path / "moved" / "adapter")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "adapters of type 'IA3' are not supported"),
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
    ],
)
def test_what_is_not_plain_lora_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    save_adapters(trained(decoder_of(), CONFIGS[0]), CONFIGS[0], tmp_path, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}), encoding="utf-8")
    with pytest.raises(ArtefactError, match=said):
        load_adapters(tmp_path, decoder_of())


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    save_adapters(trained(decoder_of(), CONFIGS[0]), CONFIGS[0], tmp_path, tmp_path)
    other = Decoder(decoder_of().config.model_copy(update={"hidden_size": 32, "head_dim": 8}))
    with pytest.raises(ArtefactError, match="not whole, or not of this model's shape"):
        load_adapters(tmp_path, other)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(ArtefactError, match="pickled adapters are never read"):
        load_adapters(tmp_path, decoder_of())


def test_file_holds_adapters_alone(tmp_path: Path) -> None:
    save_adapters(trained(decoder_of(), CONFIGS[0]), CONFIGS[0], tmp_path, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2
    assert tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape == (3, 16)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == sorted(TARGETS)


def test_a_bf16_copy_has_adapters_and_casts_what_is_trained() -> None:
    decoder = trained(decoder_of(), CONFIGS[0])
    trainee = Trainee(decoder, OptimizerConfig(lr=1e-2), torch.bfloat16)
    examples, objective = documents(), Likelihood()
    base = {n: p.clone() for n, p in decoder.named_parameters() if not p.requires_grad}
    loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
    loss.backward()
    trainee.collect()
    trainee.step(0, 10)
    assert trainee.copy is not None
    for (name, parameter), other in zip(decoder.named_parameters(), trainee.copy.parameters(), strict=True):
        assert torch.equal(parameter.to(torch.bfloat16), other), name
    assert all(torch.equal(base[n], p) for n, p in decoder.named_parameters() if n in base)
    assert len(trainee.optimizers[0].state) == 2 * 7 * 2
    engine = trainee.inference_decoder()
    assert not adapters(engine)
    assert next(engine.parameters()).dtype == torch.bfloat16
    name = "model.layers.0.mlp.up_proj.weight"
    assert trainee.base_decoder().state_dict()[name].data_ptr() == trainee.copy.state_dict()[name].data_ptr()
