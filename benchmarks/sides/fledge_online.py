"""Ours, the online stages: what samples, scores and trains in grpo, rloo, online-dpo and ppo; see fledge_train.py.

Nothing is left out of training, as the stages would do by default with answers that never end: random weights hardly
ever end one, and the peer trains on all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import work

from fledge.core.config import build
from fledge.core.records import Message, Task
from fledge.model.hf import load_decoder
from fledge.model.scalar import load_scalar
from fledge.stages import grpo, online_dpo, ppo
from fledge.stages.rollouts import Sampler
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.loop import Source
from fledge.train.objective import Objective
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

LIMIT = 4096  # tokens of prompt and answer: more than any row has


def groups(
    arguments: argparse.Namespace, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype
) -> tuple[Source, Objective]:
    """grpo and rloo. The reward is the peer's function: how many letters an answer uses. RLOO holds to the start by a
    KL in the reward, as the peer's does by default."""
    values = settings(arguments)
    if arguments.job == "rloo":
        values |= {"variant": "rloo", "beta": work.RLOO_BETA}
    config = build(grpo.Config, values)
    reference = load_decoder(folder).to(dtype) if config.beta else None
    sampler = grpo.make_sampler(config, tasks(arguments), tokenizer, LIMIT)
    return grpo.Groups(sampler, config, reference, None), config.objective()


def contests(
    arguments: argparse.Namespace, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype
) -> tuple[Source, Objective]:
    """online-dpo: the better and the worse of two answers, told apart by a reward model."""
    config = build(online_dpo.Config, {**settings(arguments), "rewards": reward_model(arguments), "beta": 0.1})
    sampler = Sampler(tasks(arguments), config, tokenizer, LIMIT)
    source = online_dpo.Contests(sampler, config, load_decoder(folder).to(dtype), None)
    return source, online_dpo.OnlineDpo(config, compare=False)


def actor_critic(
    arguments: argparse.Namespace, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype
) -> tuple[Source, Objective, dict[str, Trainee], int]:
    """ppo: with the value model beside the policy, and how many updates a rollout has. No update waits for the value,
    rewards are as they are, advantages are whitened: the peer's way."""
    values = {
        **settings(arguments), "rewards": reward_model(arguments), "epochs": work.PPO["epochs"], "minibatches": 1,
        "beta": work.PPO["beta"], "clip": work.PPO["clip"], "gamma": 1.0, "lam": work.PPO["lam"], "bootstrap": False,
        "value": {"optimizer": {"lr": 1e-4}, "clip": work.PPO["value_clip"], "warmup": 0}, "normalise": "none",
    }  # fmt: skip
    config = build(ppo.Config, values)
    value = load_scalar(work.model_folder(arguments.size + work.REWARD))
    sampler = Sampler(tasks(arguments), config, tokenizer, LIMIT)
    source = ppo.Rollouts(sampler, config, load_decoder(folder).to(dtype))
    objective = ppo.Ppo(config.clip, config.value.clip, config.rollout.temperature)
    beside = {"value": Trainee(value, OptimizerConfig(lr=1e-4), dtype, recompute=arguments.recompute)}
    return source, objective, beside, config.updates


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keys that every online stage has. Answers are drawn from the whole distribution, at temperature 1."""
    rollout = {"prompts": arguments.batch, "samples": arguments.samples, "max_new_tokens": arguments.new,
               "temperature": 1.0, "top_p": 1.0, "leave_out": []}  # fmt: skip
    return {"model": ".", "tasks": ["."], "optimizer": {"lr": 1e-4}, "rollout": rollout, "dtype": arguments.dtype}


def reward_model(arguments: argparse.Namespace) -> list[dict[str, str]]:
    return [{"kind": "model", "model": str(work.model_folder(arguments.size + work.REWARD))}]


def tasks(arguments: argparse.Namespace) -> list[Task]:
    count = arguments.batch * (arguments.warmup + arguments.steps)
    return [
        Task(id=str(i), messages=(Message(role="user", content=text),), verifier="reward:score", answer={})
        for i, text in enumerate(work.prompts(count, arguments.length))
    ]
