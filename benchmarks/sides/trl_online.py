"""The peer's online trainers: GRPO, RLOO, online DPO, PPO; see trl_train.py. Answers are drawn at temperature 1."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

import work

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def prompts(arguments: argparse.Namespace, tokenizer: Any) -> list[str]:
    """As many as the run takes."""
    count = arguments.batch * (arguments.warmup + arguments.steps)
    texts = [work.as_text(text) for text in work.prompts(count, arguments.length)]
    assert len(tokenizer(texts[0])["input_ids"]) == arguments.length
    return texts


def grouped(arguments: argparse.Namespace, values: Mapping[str, Any], model: Any, tokenizer: Any, clock: Any) -> Any:
    """grpo and rloo: a reward that is a function, groups of ``samples`` answers. RLOO's KL is the peer's default."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    import reward

    rows = Dataset.from_list([{"prompt": text} for text in prompts(arguments, tokenizer)])
    given: dict[str, Any] = {
        "per_device_train_batch_size": arguments.batch * arguments.samples, "num_generations": arguments.samples,
        "max_completion_length": arguments.new, **values,
    }  # fmt: skip
    shared: dict[str, Any] = {
        "model": model, "reward_funcs": reward.of_completions, "train_dataset": rows, "processing_class": tokenizer,
        "callbacks": [clock],
    }  # fmt: skip
    if arguments.job == "grpo":
        return GRPOTrainer(args=GRPOConfig(**given), **shared)
    return RLOOTrainer(args=RLOOConfig(**{"beta": work.RLOO_BETA, **given}), **shared)


def online_dpo(arguments: argparse.Namespace, values: Mapping[str, Any], model: Any, tokenizer: Any, clock: Any) -> Any:
    """Two answers a prompt, which is all that this trainer makes; the reward model tells them apart."""
    from datasets import Dataset
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    assert arguments.samples == 2, "the peer samples two answers a prompt"
    rows = Dataset.from_list([{"prompt": text} for text in prompts(arguments, tokenizer)])
    given: dict[str, Any] = {
        "per_device_train_batch_size": arguments.batch, "max_new_tokens": arguments.new, "temperature": 1.0,
        "max_length": arguments.length + arguments.new, "beta": [0.1], **values,
    }  # fmt: skip
    return OnlineDPOTrainer(
        model=model, reward_funcs=scalar(arguments), args=OnlineDPOConfig(**given), train_dataset=rows,
        processing_class=tokenizer, reward_processing_classes=tokenizer, callbacks=[clock],
    )  # fmt: skip


def ppo(arguments: argparse.Namespace, values: Mapping[str, Any], model: Any, tokenizer: Any, clock: Any) -> Any:
    """The peer answers each row of its data once, so that each prompt is in them ``samples`` times."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    ids = [tokenizer(text)["input_ids"] for text in prompts(arguments, tokenizer) for _ in range(arguments.samples)]
    rows = Dataset.from_list([{"input_ids": row} for row in ids])
    given: dict[str, Any] = {
        "per_device_train_batch_size": arguments.batch * arguments.samples, "total_episodes": len(ids),
        "response_length": arguments.new, "temperature": 1.0, "stop_token": "eos", "num_mini_batches": 1,
        "num_ppo_epochs": work.PPO["epochs"], "kl_coef": work.PPO["beta"], "cliprange": work.PPO["clip"],
        "cliprange_value": work.PPO["value_clip"], "lam": work.PPO["lam"], "num_sample_generations": 0, **values,
    }  # fmt: skip
    return PPOTrainer(
        args=PPOConfig(**given), processing_class=tokenizer, model=model, ref_model=None,
        reward_model=scalar(arguments), value_model=scalar(arguments), train_dataset=rows, eval_dataset=rows,
        callbacks=[clock],
    )  # fmt: skip


def scalar(arguments: argparse.Namespace) -> Any:
    import torch
    from transformers import Qwen2ForSequenceClassification

    folder = work.model_folder(arguments.size + work.REWARD)
    return Qwen2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32, num_labels=1)
