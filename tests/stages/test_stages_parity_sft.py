"""SFT beside trl's SFTTrainer: every mask, on three kinds of dialogue, with dialogues packed and padded; and LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity_model import make_folder

from fledge.core.records import Conversation
from fledge.model.adapters import LoraConfig, adapters, add_adapters
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder
from fledge.tokenizer import chat
from fledge.tokenizer.chat import encode_for_training
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import pack, single
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

pytest.importorskip("trl", reason="trl is not installed (pip install fledge[parity])")
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

CALL = {"name": "add", "arguments": {"x": 1, "y": 1}}
DIALOGUES: dict[str, dict[str, Any]] = {
    "one turn": {"messages": [{"role": "user", "content": "one plus one?"}, {"role": "assistant", "content": "two"}]},
    "system and turns": {
        "messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "content": "你好"},
            {"role": "assistant", "content": "你好，世界。"}, {"role": "user", "content": "the cat?"},
            {"role": "assistant", "content": "sat on the mat"},
        ]
    },
    "tools": {
        "tools": [{"name": "add", "parameters": {"x": "int", "y": "int"}}],
        "messages": [
            {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "2"}, {"role": "assistant", "content": "two"},
        ],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = ["the cat sat on the mat: one plus one is two。你好，世界。"]
    return make_folder(tmp_path_factory.mktemp("model"), texts, 1024)


def encoded(folder: Path, mask: chat.Mask) -> list[chat.EncodedChat]:
    tokenizer = Tokenizer.load(folder)
    return [encode_for_training(tokenizer, Conversation.model_validate(d), mask) for d in DIALOGUES.values()]


def by_trl(model: Any, folder: Path, rows: list[chat.EncodedChat], out: Path) -> torch.Tensor:
    """trl's loss of one padded batch, its gradients in the model."""
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out), per_device_train_batch_size=len(rows), max_length=None, report_to="none", use_cpu=True,
            bf16=False, gradient_checkpointing=False, disable_tqdm=True, dataloader_pin_memory=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(
            [
                {
                    "input_ids": row.ids,
                    "labels": [i if w else -100 for i, w in zip(row.ids, row.weights, strict=True)],
                }
                for row in rows
            ]
        ),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)})
    loss.backward()
    return loss.detach()


def by_us(decoder: Decoder, rows: list[chat.EncodedChat]) -> float:
    examples = [single(np.array(row.ids), np.array(row.weights)) for row in rows]
    objective = Likelihood()
    loss, _, _ = Trainee(decoder, OptimizerConfig(lr=1.0)).loss(
        pack(examples), objective, objective.denominators(examples)
    )
    loss.backward()
    return float(loss.detach())


@pytest.mark.parametrize("mask", chat.MASKS)
def test_every_mask(mask: chat.Mask, folder: Path, tmp_path: Path) -> None:
    rows = encoded(folder, mask)
    model = AutoModelForCausalLM.from_pretrained(folder)
    want = by_trl(model, folder, rows, tmp_path)
    decoder = load_decoder(folder)
    assert by_us(decoder, rows) == pytest.approx(float(want), rel=1e-5)
    theirs = dict(model.named_parameters())
    for name, parameter in decoder.named_parameters():
        wanted, found = theirs[name].grad, parameter.grad
        assert wanted is not None
        assert found is not None
        assert float((found - wanted).norm() / wanted.norm()) < 1e-5, name


def test_adapters(folder: Path, tmp_path: Path) -> None:
    """The same A and B in peft's model: the same loss, the same gradients of both."""
    peft = pytest.importorskip("peft", reason="peft is not installed (pip install fledge[parity])")
    rows = encoded(folder, "response")
    config = LoraConfig(r=3, alpha=9)
    decoder = add_adapters(load_decoder(folder), config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in adapters(decoder).values():
            layer.lora_B.weight.copy_(0.1 * torch.randn(layer.lora_B.weight.shape, generator=generator))
    settings = peft.LoraConfig(r=3, lora_alpha=9, target_modules=list(config.targets), task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), settings)
    theirs = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    ours = {name: parameter for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert theirs.keys() == ours.keys()
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(ours[name])
    want = by_trl(model, folder, rows, tmp_path)
    assert by_us(decoder, rows) == pytest.approx(float(want), rel=1e-5)
    for name, parameter in ours.items():
        wanted, found = theirs[name].grad, parameter.grad
        assert wanted is not None
        assert found is not None
        assert float((found - wanted).norm() / wanted.norm()) < 1e-5, name
