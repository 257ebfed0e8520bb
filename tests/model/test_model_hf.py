"""Hugging Face folders: there and back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import config, decoder, logits
from safetensors.torch import load_file, save_file

from fledge.core.errors import ArtefactError, FledgeError
from fledge.model.hf import load_config, load_decoder, save_decoder
from fledge.model.layout import Layout


@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "LlamaForCausalLM"])
@pytest.mark.parametrize("tied", [True, False])
def test_there_and_back(architecture: str, tied: bool, tmp_path: Path) -> None:
    shape = config(architecture, tie_word_embeddings=tied, rope_theta=123456.0, rms_norm_eps=1e-5)
    model = decoder(shape)
    save_decoder(model, tmp_path, {"eos_token_id": [5, 7], "pad_token_id": 5, "do_sample": False})
    back = load_decoder(tmp_path)
    assert load_config(tmp_path) == shape == back.config
    names = [name for name, _ in model.named_parameters()]
    assert names == [name for name, _ in back.named_parameters()]
    for x, y in zip(model.parameters(), back.parameters(), strict=True):
        assert torch.equal(x, y)
        assert y.requires_grad
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not tied
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [5, 7]
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [5, 7]


def test_transformers_own_folder_is_read(tmp_path: Path) -> None:
    """Written by transformers, in several files, with its configuration of today."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=131, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, max_position_embeddings=256, rope_theta=5e4, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ours = load_decoder(tmp_path)
    assert (ours.config.head_dim, ours.config.rope_theta) == (8, theirs.config.rope_parameters["rope_theta"])
    tokens = torch.arange(40) % 131
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
        torch.testing.assert_close(logits(ours, tokens, Layout.of([40])), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_into_float32(stored: torch.dtype, tmp_path: Path) -> None:
    model = decoder(config())
    save_decoder(model, tmp_path, dtype=stored)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(stored).removeprefix("torch.")
    back = load_decoder(tmp_path)
    for x, y in zip(model.parameters(), back.parameters(), strict=True):
        assert y.dtype == torch.float32
        assert torch.equal(x.to(stored).float(), y)


def test_old_configurations_are_read(tmp_path: Path) -> None:
    """rope_theta at the top, no head_dim, as transformers 4 wrote them."""
    save_decoder(decoder(config(rope_theta=1e6)), tmp_path)
    edit(tmp_path, lambda c: [c.pop(k) for k in ("rope_parameters", "head_dim", "dtype")])
    assert load_config(tmp_path).rope_theta == 1e6
    assert load_config(tmp_path).head_dim == 8


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json: there is no such file"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
    "pickle": (pickled, "pickled weights are never read"),
    "damaged": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "damaged or not safetensors"),
    "cut": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-50]),
        "damaged or not safetensors",
    ),
    "other architecture": (
        lambda f: edit(f, lambda c: c.update(architectures=["GemmaForCausalLM"])),
        "'GemmaForCausalLM' is not supported",
    ),
    "code": (lambda f: edit(f, lambda c: c.update(auto_map={"AutoModel": "m.M"})), "never executed"),
    "yarn": (
        lambda f: edit(f, lambda c: c.update(rope_scaling={"type": "yarn", "factor": 4.0})),
        "rope_scaling of type 'yarn'",
    ),
    "yarn in 5": (
        lambda f: edit(f, lambda c: c["rope_parameters"].update(rope_type="yarn", factor=4.0)),
        "rope_parameters of type 'yarn'",
    ),
    "window": (lambda f: edit(f, lambda c: c.update(use_sliding_window=True)), "use_sliding_window=True"),
    "activation": (lambda f: edit(f, lambda c: c.update(hidden_act="gelu")), "hidden_act='gelu'"),
    "quantised": (lambda f: edit(f, lambda c: c.update(quantization_config={"bits": 4})), "quantization_config"),
    "lacks a size": (lambda f: edit(f, lambda c: c.pop("intermediate_size")), "lacks 'intermediate_size'"),
    "impossible heads": (lambda f: edit(f, lambda c: c.update(num_key_value_heads=4)), "not a multiple of"),
    "shape": (
        lambda f: edit(f, lambda c: c.update(intermediate_size=96)),
        r"'model.layers.0.mlp.down_proj.weight' has shape \(48, 80\).*asks for \(48, 96\)",
    ),
    "fewer layers": (lambda f: edit(f, lambda c: c.update(num_hidden_layers=2)), "unexpected tensor 'model.layers.2"),
    "more layers": (lambda f: edit(f, lambda c: c.update(num_hidden_layers=4)), "lack tensor 'model.layers.3.*11 more"),
    "missing": (lambda f: edit_weights(f, lambda t: t.pop("model.norm.weight")), "lack tensor 'model.norm.weight'"),
    "no biases": (
        lambda f: edit_weights(f, lambda t: [t.pop(k) for k in list(t) if k.endswith("bias")]),
        "has biases on q, k and v",
    ),
    "untied without head": (lambda f: edit(f, lambda c: c.update(tie_word_embeddings=False)), "the head must be there"),
    "tokenizer of another model": (
        lambda f: (f / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 131}}})),
        "largest token id is 131, but the embedding has 131 rows",
    ),
    "index names a missing file": (
        lambda f: (
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
        ),
        "named by the index, but is not there",
    ),
    "index leaves the folder": (
        lambda f: (
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}'),
        ),
        "not a file name in this folder",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    damage, message = REFUSED[case]
    save_decoder(decoder(config()), tmp_path)
    load_decoder(tmp_path)
    damage(tmp_path)
    with pytest.raises(FledgeError, match=f"(?s){message}"):
        load_decoder(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there is no such folder"):
        load_decoder(tmp_path / "nothing")
