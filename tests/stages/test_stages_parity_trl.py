"""Losses and gradients equal to trl's, on the same weights and the same ids.

trl is followed wherever it has the method. Its ``sigmoid`` ignores label smoothing, ``robust`` is rDPO, and it has no
cDPO (SPEC I.1): that one is tested against the literal formula in test_train_losses. Its ``aot`` sorts the gains of a
batch, so that the loss depends on how a batch is cut: we do not have it. For GRPO the paper is followed,
whose KL term is not weighted by the ratio; trl weights it by default, and is told not to. GSPO is trl's loss ``grpo``
with a ratio of the sequence. trl's RLOO has KL in the reward, as here, and clips the ratio of the whole answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity_model import make_folder

from fledge.model.hf import load_decoder
from fledge.model.scalar import has_scalar_head, load_scalar, save_scalar
from fledge.stages.dpo import Dpo
from fledge.stages.grpo import METHODS, Grpo, Variant, with_advantages
from fledge.stages.rankings import ranking_example
from fledge.stages.reward import BradleyTerry
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, Segment, pack
from fledge.train.objective import Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

pytest.importorskip("trl", reason="trl is not installed (pip install fledge[parity])")
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
)

TEXTS = ["the cat sat on the mat and looked at the moon", "one plus one is two, two plus two is four", "你好，世界。"]
QUIET: dict[str, Any] = {
    "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "disable_tqdm": True,
    "dataloader_pin_memory": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"), TEXTS, 128)


def ours(folder: Path, objective: Objective, examples: list[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    load = load_scalar if has_scalar_head(folder) else load_decoder
    trainee = Trainee(load(folder), OptimizerConfig(lr=1.0))
    loss, _, _ = trainee.loss(pack(examples), objective, objective.denominators(examples))
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in trainee.decoder.named_parameters() if p.grad is not None}


def assert_parity(
    folder: Path, objective: Objective, examples: list[Example], loss: torch.Tensor, model: torch.nn.Module,
    tolerance: float = 1e-5,
) -> None:  # fmt: skip
    loss.backward()
    value, grads = ours(folder, objective, examples)
    assert value == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
    theirs = dict(model.named_parameters())
    for name, grad in grads.items():
        want = theirs[name].grad
        assert want is not None
        assert float((grad - want).norm() / want.norm()) < tolerance, name


@pytest.mark.parametrize(
    ("loss_type", "objective", "settings"),
    [
        ("sigmoid", Dpo(0.3), {}),
        ("robust", Dpo(0.3, "rdpo", 0.1), {"label_smoothing": 0.1}),
        ("ipo", Dpo(0.3, "ipo"), {}),
        ("sigmoid_norm", Dpo(0.3, length_normalised=True), {}),
        ("hinge", Dpo(0.3, "hinge"), {}),
        ("exo_pair", Dpo(0.3, "exo", 0.1), {"label_smoothing": 0.1}),
        ("discopop", Dpo(0.3, "discopop"), {"discopop_tau": 0.05}),
        ("nca_pair", Dpo(0.3, "nca"), {}),
        ("bco_pair", Dpo(0.3, "bco"), {}),
        ("sppo_hard", Dpo(0.3, "sppo"), {}),
        ("apo_zero", Dpo(0.3, "apo_zero"), {}),
        ("apo_down", Dpo(0.3, "apo_down"), {}),
        # trl's NLL is a mean over the tokens of a batch, ours of each answer (SPEC I.1): one where lengths are equal
        (["sigmoid", "sft"], Dpo(0.3, nll=0.2), {"loss_weights": [1.0, 0.2]}),
    ],
    ids=lambda value: "dpo" if isinstance(value, Dpo) else str(value),  # the same in every worker
)
def test_dpo(
    loss_type: str | list[str], objective: Dpo, settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    rows = [
        {"prompt": "the cat", "chosen": " sat on the mat", "rejected": " looked at the moon and the mat"},
        {"prompt": "one plus one is", "chosen": " two", "rejected": " four, two plus"},
    ]
    if isinstance(loss_type, list):
        rows[0]["chosen"] = rows[1]["chosen"]
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
    # discopop divides the margin by .05, and with it what float32 has rounded
    assert_parity(folder, objective, examples, loss, trainer.model, 1e-4 if loss_type == "discopop" else 1e-5)


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


@pytest.mark.parametrize(("margins", "centre"), [(False, 0.0), (True, 0.0), (False, 0.01)])
def test_reward(margins: bool, centre: float, folder: Path, tmp_path: Path) -> None:
    """trl's batch holds every answer with its prompt, padded; ours the prompt once."""
    rows = [
        {"prompt": "the cat", "chosen": " sat on the mat", "rejected": " looked at the moon and the mat"},
        {"prompt": "one plus one is", "chosen": " two", "rejected": " four, two plus"},
    ]
    given = [{**row, "margin": 0.5 + k} for k, row in enumerate(rows)] if margins else rows
    start = tmp_path / "start"
    save_scalar(load_scalar(folder, seed=2), start, Tokenizer.load(folder).endoftext)
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(start),
        args=RewardConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=2, center_rewards_coefficient=centre or None, **QUIET
        ),
        train_dataset=Dataset.from_list(given),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    loss = trainer.compute_loss(trainer.model, dict(inputs))
    examples = []
    for row in range(len(rows)):
        chosen, rejected = (ids[at][mask[at] == 1].tolist() for at in (row, row + len(rows)))
        shared = next(k for k, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
        worth = [float(inputs["margin"][row]) if margins else 0.0, 0.0]
        examples.append(ranking_example(chosen[:shared], [chosen[shared:], rejected[shared:]], [1, 2], worth, ""))
    assert_parity(start, BradleyTerry(float(margins), centre), examples, loss, trainer.model)


@pytest.mark.parametrize(
    ("variant", "trl_name", "high", "beta", "settings"),
    [
        ("grpo", "grpo", 0.2, 0.04, {}),
        ("dr_grpo", "dr_grpo", 0.2, 0.0, {}),
        ("dapo", "dapo", 0.28, 0.0, {}),
        ("dapo", "dapo", 0.28, 0.04, {}),
        ("gspo", "grpo", 0.28, 0.04, {"importance_sampling_level": "sequence"}),
    ],
)
def test_grpo(
    variant: Variant, trl_name: str, high: float, beta: float, settings: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    trainer = GRPOTrainer(
        model=str(folder),
        reward_funcs=no_reward,
        args=GRPOConfig(
            output_dir=str(tmp_path), loss_type=trl_name, epsilon=0.2, epsilon_high=high, beta=beta,
            num_generations=SAMPLES, per_device_train_batch_size=2 * SAMPLES, max_completion_length=LONGEST,
            use_bias_correction_kl=False, **settings, **QUIET,
        ),
        train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 8),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    inputs, examples = sampled(variant)
    loss = trainer._compute_loss(trainer.model, inputs)
    objective = Grpo(variant, 0.2, high, beta, max_new_tokens=LONGEST, on_policy=False)
    assert_parity(folder, objective, examples, loss, trainer.model)


def test_rloo(folder: Path, tmp_path: Path) -> None:
    """The loss; its advantages have the numbers of SPEC J.4 in test_train_advantages."""
    trainer = RLOOTrainer(
        model=str(folder),
        reward_funcs=no_reward,
        args=RLOOConfig(
            output_dir=str(tmp_path), epsilon=0.2, beta=0.1, num_generations=SAMPLES,
            per_device_train_batch_size=2 * SAMPLES, max_completion_length=LONGEST, **QUIET,
        ),
        train_dataset=Dataset.from_list([{"prompt": "the cat"}] * 8),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.current_train_step_time = 0.0
    inputs, examples = sampled("rloo", near=0.05)
    inputs["old_logps"] = (inputs["old_per_token_logps"] * inputs["completion_mask"]).sum(1)
    loss = trainer._compute_loss(trainer.model, inputs)
    assert_parity(folder, Grpo("rloo", 0.2, 0.2, on_policy=False), examples, loss, trainer.model)


SAMPLES, LONGEST = 4, 9


def no_reward(completions: list[Any], **_: Any) -> list[float]:
    return [0.0] * len(completions)


def sampled(variant: Variant, near: float = 0.5) -> tuple[dict[str, torch.Tensor], list[Example]]:
    """Two groups with random advantages and log-probabilities, as trl has them and as we do."""
    generator = np.random.default_rng(0)
    prompts = [generator.integers(3, 300, n) for n in (5, 8)]
    answers = [[generator.integers(3, 300, n) for n in generator.integers(1, LONGEST, SAMPLES)] for _ in prompts]
    advantages = generator.normal(size=(2, SAMPLES)).astype(np.float32)
    old, reference = (generator.normal(-5.8, near, (2 * SAMPLES, LONGEST)).astype(np.float32) for _ in range(2))
    inputs = padded(prompts, answers, LONGEST)
    inputs |= {
        "advantages": torch.from_numpy(advantages.reshape(-1)), "old_per_token_logps": torch.from_numpy(old),
        "ref_per_token_logps": torch.from_numpy(reference),
        "num_items_in_batch": inputs["completion_mask"].sum(),
    }  # fmt: skip
    examples = []
    for q, prompt in enumerate(prompts):
        counts = {"samples": float(SAMPLES), "sampled": float(sum(map(len, answers[q])))}
        segments = [Segment(prompt.astype(np.int32), np.zeros(len(prompt), np.float32), values=counts)]
        for g, answer in enumerate(answers[q]):
            row, n = q * SAMPLES + g, len(answer)
            columns = {"old": old[row, :n], "reference": reference[row, :n]}
            segments.append(Segment(answer.astype(np.int32), np.ones(n, np.float32), 0, columns))
        examples.append(with_advantages(Example(tuple(segments)), advantages[q], METHODS[variant]))
    return inputs, examples


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
