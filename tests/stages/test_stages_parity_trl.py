"""Losses and gradients equal to trl's, on the same weights and the same ids.

trl is followed wherever it has the method. Its ``sigmoid`` ignores label smoothing, ``robust`` is rDPO, and it has no
cDPO (SPEC I.1): that one is tested against the literal formula in test_train_losses. For GRPO the paper is followed,
whose KL term is not weighted by the ratio; trl weights it by default, and is told not to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.hf import save_decoder
from fledge.stages.dpo import Dpo
from fledge.stages.grpo import Grpo
from fledge.tokenizer import bpe
from fledge.train.batch import Example, Segment, pack
from fledge.train.objective import Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

pytest.importorskip("trl", reason="trl is not installed (pip install fledge[parity])")
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

TEXTS = ["the cat sat on the mat and looked at the moon", "one plus one is two, two plus two is four", "你好，世界。"]
QUIET: dict[str, Any] = {
    "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True,
    "dataloader_pin_memory": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tokenizer = bpe.train(TEXTS * 20, vocab_size=320, pad_to=64)
    decoder = Decoder(
        DecoderConfig(
            vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=128, initializer_range=0.2,
        )
    )  # fmt: skip
    decoder.initialise(1)
    save_decoder(decoder, path, {"eos_token_id": tokenizer.im_end, "pad_token_id": tokenizer.endoftext})
    tokenizer.save(path)
    return path


def ours(folder: Path, objective: Objective, examples: list[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    from fledge.model.hf import load_decoder

    trainee = Trainee(load_decoder(folder), OptimizerConfig(lr=1.0))
    loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in trainee.decoder.named_parameters() if p.grad is not None}


def assert_parity(
    folder: Path, objective: Objective, examples: list[Example], loss: torch.Tensor, model: torch.nn.Module
) -> None:
    loss.backward()
    value, grads = ours(folder, objective, examples)
    assert value == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    theirs = dict(model.named_parameters())
    for name, grad in grads.items():
        want = theirs[name].grad
        assert want is not None
        assert float((grad - want).norm() / want.norm()) < 1e-5, name


@pytest.mark.parametrize(
    ("loss_type", "objective", "settings"),
    [
        ("sigmoid", Dpo(0.3), {}),
        ("robust", Dpo(0.3, "rdpo", 0.1), {"label_smoothing": 0.1}),
        ("ipo", Dpo(0.3, "ipo"), {}),
        ("sigmoid_norm", Dpo(0.3, length_normalised=True), {}),
    ],
)
def test_dpo(loss_type: str, objective: Dpo, settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": "the cat", "chosen": " sat on the mat", "rejected": " looked at the moon and the mat"},
        {"prompt": "one plus one is", "chosen": " two", "rejected": " four, two plus"},
    ]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        ref_model=AutoModelForCausalLM.from_pretrained(folder),
        args=DPOConfig(
            output_dir=str(tmp_path), beta=0.3, loss_type=loss_type, per_device_train_batch_size=2, **settings, **QUIET
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    # A reference that differs from the policy, or every margin would be 0
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.ref_model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    loss = trainer.compute_loss(trainer.model, inputs)
    examples = dpo_examples(inputs, trainer.ref_model)
    assert_parity(folder, objective, examples, loss, trainer.model)


def dpo_examples(inputs: dict[str, torch.Tensor], reference: torch.nn.Module) -> list[Example]:
    """trl's padded batch (chosen rows, then rejected) as pairs with shared prompts."""
    ids, mask, trained = (inputs[k] for k in ("input_ids", "attention_mask", "completion_mask"))
    with torch.no_grad():
        logits = reference(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    logp = torch.zeros(ids.shape)
    logp[:, 1:] = logits[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    examples = []
    for row in range(len(ids) // 2):
        segments = []
        for side, at in ((1.0, row), (-1.0, row + len(ids) // 2)):
            where = torch.nonzero(trained[at])[:, 0]
            if not segments:
                prompt = ids[at][(mask[at] == 1) & (trained[at] == 0)].numpy().astype(np.int32)
                segments.append(Segment(prompt, np.zeros(len(prompt), np.float32)))
            columns = {"reference": logp[at, where].numpy()}
            ones = np.ones(len(where), np.float32)
            segments.append(Segment(ids[at, where].numpy().astype(np.int32), ones, 0, columns, {"side": side}))
        examples.append(Example(tuple(segments)))
    return examples


@pytest.mark.parametrize(
    ("variant", "trl_name", "high", "beta"),
    [
        ("grpo", "grpo", 0.2, 0.04),
        ("dr_grpo", "dr_grpo", 0.2, 0.0),
        ("dapo", "dapo", 0.28, 0.0),
        ("dapo", "dapo", 0.28, 0.04),
    ],
)
def test_grpo(variant: str, trl_name: str, high: float, beta: float, folder: Path, tmp_path: Path) -> None:
    samples, longest = 4, 9
    trainer = GRPOTrainer(
        model=str(folder),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=str(tmp_path), loss_type=trl_name, epsilon=0.2, epsilon_high=high, beta=beta,
            num_generations=samples, per_device_train_batch_size=2 * samples, max_completion_length=longest,
            use_bias_correction_kl=False, **QUIET,
        ),
        train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 8),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    generator = np.random.default_rng(0)
    prompts = [generator.integers(3, 300, n) for n in (5, 8)]
    answers = [[generator.integers(3, 300, n) for n in generator.integers(1, longest, samples)] for _ in prompts]
    advantages = generator.normal(size=(2, samples)).astype(np.float32)
    old, reference = (generator.normal(-5.5, 0.5, (2 * samples, longest)).astype(np.float32) for _ in range(2))
    inputs = padded(prompts, answers, longest)
    inputs |= {
        "advantages": torch.from_numpy(advantages.reshape(-1)), "old_per_token_logps": torch.from_numpy(old),
        "ref_per_token_logps": torch.from_numpy(reference),
        "num_items_in_batch": inputs["completion_mask"].sum(),
    }  # fmt: skip
    loss = trainer._compute_loss(trainer.model, inputs)
    examples = []
    for q, prompt in enumerate(prompts):
        counts = {"samples": float(samples), "sampled": float(sum(map(len, answers[q])))}
        segments = [Segment(prompt.astype(np.int32), np.zeros(len(prompt), np.float32), values=counts)]
        for g, answer in enumerate(answers[q]):
            row, n = q * samples + g, len(answer)
            columns = {"old": old[row, :n], "reference": reference[row, :n]}
            values = {"advantage": float(advantages[q, g]), "share": 1 / n if variant == "grpo" else 1.0}
            segments.append(Segment(answer.astype(np.int32), np.ones(n, np.float32), 0, columns, values))
        examples.append(Example(tuple(segments)))
    objective = Grpo(variant, 0.2, high, beta, max_new_tokens=longest, on_policy=False)  # type: ignore[arg-type]
    assert_parity(folder, objective, examples, loss, trainer.model)


def padded(prompts: list[Any], answers: list[list[Any]], longest: int) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, answers on the right, as trl has them."""
    width = max(map(len, prompts))
    rows = [(prompt, answer) for prompt, group in zip(prompts, answers, strict=True) for answer in group]
    shapes = {"prompt_ids": width, "prompt_mask": width, "completion_ids": longest, "completion_mask": longest}
    out = {name: torch.zeros(len(rows), size, dtype=torch.int64) for name, size in shapes.items()}
    for i, (prompt, answer) in enumerate(rows):
        out["prompt_ids"][i, width - len(prompt) :] = torch.from_numpy(prompt)
        out["prompt_mask"][i, width - len(prompt) :] = 1
        out["completion_ids"][i, : len(answer)] = torch.from_numpy(answer)
        out["completion_mask"][i, : len(answer)] = 1
    return out
