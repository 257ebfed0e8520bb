"""Stage grpo: tasks that a program verifies -> a model that solves more of them (SPEC J.5, J.6).

Each step samples a group of answers for each prompt with our engine, on the weights in training; the advantage of an
answer is its reward against its group. A group is a prompt with G children, so the prompt is computed once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from fledge.core import config as core_config
from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.errors import DataError
from fledge.core.machine import compute_dtype
from fledge.core.readers import OnError
from fledge.core.records import Task
from fledge.generate.engine import Completion, Engine, Request
from fledge.generate.rate import tokens_per_second
from fledge.generate.sampling import Sampling
from fledge.model.compiled import compiled
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder
from fledge.reward import sandbox, verifiers
from fledge.reward.verifiers import Score, score_many
from fledge.stages.dialogues import (
    Account,
    Replay,
    ReplayConfig,
    WithReplay,
    prompt_segment,
    read_replay,
    read_usable,
    replay_state,
    replay_tokens,
    restore_replay,
)
from fledge.stages.dpo import attach
from fledge.stages.training import EpochOrder, Training, TrainingConfig, load_start, train, training_work, with_context
from fledge.tokenizer.chat import encode_prompt
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, PackedBatch, Segment
from fledge.train.estimate import rollout_estimate
from fledge.train.loop import GlobalBatch
from fledge.train.losses import KlEstimator, clipped_ratio, group_advantages, kl, overlong_penalty
from fledge.train.mesh import Mesh
from fledge.train.objective import Objective, Outputs, Terms
from fledge.train.scoring import reference_logp
from fledge.train.trainee import Trainee

Variant = Literal["grpo", "dr_grpo", "dapo"]


class RolloutConfig(core_config.Config):
    """How answers are sampled. What generation_config.json says plays no part here (SPEC L.2)."""

    prompts: int = Field(default=16, gt=0, description="prompts a step")
    samples: int = Field(default=8, ge=2, description="answers a prompt: the group")
    max_new_tokens: int = Field(default=128, gt=0)
    temperature: float = Field(default=1.0, gt=0)
    max_rows: int = Field(default=128, gt=0, description="answers generated side by side")


class Config(TrainingConfig):
    model: Path = Field(description="the model folder to start from")
    tasks: tuple[Path, ...] = Field(min_length=1)
    variant: Variant = Field(
        default="grpo",
        description="how tokens are averaged: grpo, mean of each answer's mean; dr_grpo, sum over prompts x samples x "
        "max_new_tokens, no division by the deviation; dapo, mean over all tokens",
    )
    scale_rewards: bool | None = Field(default=None, description="divide by the group's deviation; default: as variant")
    clip_low: float = Field(default=0.2, gt=0)
    clip_high: float | None = Field(default=None, description="default: clip_low, and .28 for dapo (SPEC J.6)")
    beta: float = Field(default=0.0, ge=0, description="coefficient of the KL term in the loss, towards the start")
    kl: KlEstimator = "k3"
    dynamic_sampling: int = Field(
        default=0,
        ge=0,
        description="dapo: sample again, so many rounds at most, for groups whose rewards are all equal",
    )
    overlong_buffer: int = Field(default=0, ge=0, description="dapo: soft punishment in the last so many tokens")
    updates: int = Field(default=1, gt=0, description="updates for each sampled batch")
    steps: int = Field(default=50, gt=0)
    rollout: RolloutConfig = RolloutConfig()
    replay: ReplayConfig | None = None
    max_tokens: int = Field(default=0, ge=0, description="prompt and answer; 0: the model's")
    on_error: OnError = "fail"

    @model_validator(mode="after")
    def _whole_updates(self) -> Config:
        if self.rollout.prompts % self.updates:
            raise ValueError(f"rollout.prompts={self.rollout.prompts} must be a multiple of updates={self.updates}")
        return self

    @property
    def scaled(self) -> bool:
        return self.variant != "dr_grpo" if self.scale_rewards is None else self.scale_rewards

    @property
    def high(self) -> float:
        return self.clip_high if self.clip_high is not None else (0.28 if self.variant == "dapo" else self.clip_low)


class Grpo:
    """A group's first segment is its prompt, which says how many ``samples`` and ``sampled`` tokens the group has, so
    that a group whose rewards are all equal can travel without its answers. Children have ``advantage``, ``share``
    (what each token counts) and the column ``old``, and ``reference`` where there is a KL term.
    """

    def __init__(
        self, variant: Variant, low: float, high: float, beta: float = 0.0, estimator: KlEstimator = "k3",
        max_new_tokens: int = 1, temperature: float = 1.0, on_policy: bool = True,
    ) -> None:  # fmt: skip
        self.variant, self.low, self.high, self.beta, self.estimator = variant, low, high, beta, estimator
        self.max_new_tokens, self.temperature, self.on_policy = max_new_tokens, temperature, on_policy

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        values = [segment.values for e in examples for segment in e.segments]
        samples = sum(v.get("samples", 0.0) for v in values)
        if self.variant == "dapo":
            return {"policy": sum(v.get("sampled", 0.0) for v in values)}
        return {"policy": samples * (self.max_new_tokens if self.variant == "dr_grpo" else 1)}

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        share = batch.value("share")[batch.segment]  # (M,) 0 for what is not an answer of a group
        answers = (share > 0).float()
        count = float(answers.sum())
        logp, entropy = outputs.logp_and_entropy(self.temperature)
        # One update a rollout: the ratio is 1 by construction, whatever the engine's rounding
        old = logp.detach() if self.on_policy else batch.column("old")
        advantage = batch.value("advantage")[batch.segment]
        loss = clipped_ratio(logp, old, advantage, self.low, self.high)
        gap = (logp.detach() - batch.column("old")).abs() * answers
        ratio = torch.exp(logp.detach() - old)
        outside = ((ratio < 1 - self.low) | (ratio > 1 + self.high)).float()
        metrics: dict[str, tuple[Tensor | float, float]] = {
            "entropy": ((entropy.detach() * answers).sum(), count),
            "engine_gap": (gap.sum(), count),
            "clipped": ((outside * answers).sum(), count),
        }
        if self.beta:
            distance = kl(logp, batch.column("reference"), self.estimator)
            loss = loss + self.beta * distance
            metrics["kl"] = ((distance.detach() * answers).sum(), count)
        return Terms({"policy": (loss * share).sum()}, metrics)


@dataclass(frozen=True)
class Rollout:
    """One group: a task, its prompt, its answers with their rewards and advantages."""

    task: Task
    prompt: list[int]
    answers: list[Completion]
    rewards: list[float]

    @property
    def spread(self) -> bool:
        return max(self.rewards) > min(self.rewards)


class Rollouts:
    """Source: samples groups from the policy in training, scores them, makes them examples."""

    def __init__(
        self, tasks: Sequence[Task], config: Config, tokenizer: Tokenizer, limit: int, reference: Decoder | None,
        replay: Replay | None,
    ) -> None:  # fmt: skip
        self.config, self.tokenizer, self.limit = config, tokenizer, limit
        self.reference, self.replay = reference, replay
        self.tasks, self.prompts = list(tasks), [encode_prompt(tokenizer, task.messages) for task in tasks]
        self.order = EpochOrder(len(self.tasks), config.seed)
        self.rounds = 0  # of sampling so far: part of every answer's seed
        self.buffer: list[Example] = []  # groups sampled and not yet trained on
        self.last: dict[str, float] = {}

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        size = self.config.rollout.prompts // self.config.updates
        if not self.buffer:
            groups, self.last = self._sample(models["policy"])
            self.buffer = self._examples(groups, models["policy"])
        batch, self.buffer = self.buffer[:size], self.buffer[size:]
        return GlobalBatch([*batch, *(self.replay.next() if self.replay is not None else [])], dict(self.last))

    def state(self) -> dict[str, Any]:
        return {
            "taken": self.order.taken,
            "tasks": len(self.tasks),
            "rounds": self.rounds,
            "replay": replay_state(self.replay),
            "last": self.last,
            "buffer": [_freeze(example) for example in self.buffer],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        before, now = state.get("tasks", len(self.tasks)), len(self.tasks)
        if before != now:
            raise DataError(
                f"this run was begun with {before} usable tasks and now has {now}, so others would be drawn: go on "
                "where code can be confined as it was then, or begin again with --redo"
            )
        self.order.taken, self.rounds, self.last = state["taken"], state["rounds"], state["last"]
        restore_replay(self.replay, state)
        self.buffer = [_thaw(example) for example in state["buffer"]]

    def _sample(self, policy: Trainee) -> tuple[list[Rollout], dict[str, float]]:
        """Groups for one rollout; with dynamic sampling, groups without spread are replaced while rounds last."""
        wanted = self.config.rollout.prompts
        kept: list[Rollout] = []
        every: list[Rollout] = []
        for _ in range(1 + self.config.dynamic_sampling):
            fresh = self._generate(self.order.take_many(wanted), policy)
            every += fresh
            kept += [group for group in fresh if group.spread]
            if not self.config.dynamic_sampling or len(kept) >= wanted:
                break
        # Where rounds ran out, groups without spread fill up: they train nothing but keep the batch's size
        level = [group for group in every if not group.spread]
        groups = every if not self.config.dynamic_sampling else [*kept, *level][:wanted]
        return groups, self._statistics(every)

    def _generate(self, indices: Sequence[int], policy: Trainee) -> list[Rollout]:
        rollout, stops = self.config.rollout, (self.tokenizer.im_end, self.tokenizer.endoftext)
        requests = []
        for place, index in enumerate(indices):
            seed = int(np.random.SeedSequence([self.config.seed, self.rounds, place]).generate_state(1)[0])
            room = min(rollout.max_new_tokens, self.limit - len(self.prompts[index]))
            sampling = Sampling(temperature=rollout.temperature, max_new_tokens=room, seed=seed)
            requests.append(Request(self.prompts[index], rollout.samples, sampling, stops))
        self.rounds += 1
        # decoding is compiled where training is (config.compile)
        model, loops = (policy.inference_decoder(), self.tokenizer), None if compiled() else False
        engine = Engine(model, max_rows=rollout.max_rows, compile=loops)
        answers = engine.generate(requests)
        pairs = [
            (self.tasks[index], self.tokenizer.decode(answer.tokens))
            for index, group in zip(indices, answers, strict=True)
            for answer in group
        ]
        scores = iter(score_many(pairs))
        return [
            Rollout(self.tasks[i], self.prompts[i], group, [self._reward(answer, next(scores)) for answer in group])
            for i, group in zip(indices, answers, strict=True)
        ]

    def _reward(self, answer: Completion, score: Score) -> float:
        rollout, buffer = self.config.rollout, self.config.overlong_buffer
        penalty = overlong_penalty(len(answer.tokens), rollout.max_new_tokens, buffer) if buffer else 0.0
        return score.value + penalty

    def _statistics(self, groups: Sequence[Rollout]) -> dict[str, float]:
        answers = [answer for group in groups for answer in group.answers]
        rewards = np.array([reward for group in groups for reward in group.rewards])
        return {
            "reward": float(rewards.mean()),
            "groups_with_spread": float(np.mean([group.spread for group in groups])),
            "answer_tokens": float(np.mean([len(answer.tokens) for answer in answers])),
            "cut_off": float(np.mean([answer.reason == "length" for answer in answers])),
        }

    def _examples(self, groups: Sequence[Rollout], policy: Trainee) -> list[Example]:
        """A group without spread travels as its prompt alone, unless a KL term trains on its answers."""
        rewards = torch.tensor([group.rewards for group in groups], dtype=torch.float64)
        advantages = group_advantages(rewards, self.config.scaled).tolist()
        examples = [
            group_example(group, advantage, self.config.variant, with_answers=group.spread or self.config.beta > 0)
            for group, advantage in zip(groups, advantages, strict=True)
        ]
        if self.reference is None:
            return examples
        dtype, micro = compute_dtype(self.config.dtype), self.config.loop.micro_tokens
        temperature = self.config.rollout.temperature
        flat = reference_logp(examples, self.reference, dtype, micro, policy.mesh.device, temperature=temperature)
        return attach(examples, "reference", flat)


def group_example(group: Rollout, advantages: Sequence[float], variant: Variant, with_answers: bool = True) -> Example:
    """The prompt, and each answer as its child."""
    sampled = sum(len(answer.tokens) for answer in group.answers)
    counts = {"samples": float(len(group.answers)), "sampled": float(sampled)}
    segments = [prompt_segment(group.prompt, (group.task.id, 0), **counts)]
    for answer, advantage in zip(group.answers, advantages, strict=True):
        if not with_answers:
            break
        tokens = np.asarray(answer.tokens, np.int32)
        share = 1.0 / len(tokens) if variant == "grpo" else 1.0
        segments.append(
            Segment(
                tokens, np.ones(len(tokens), np.float32), 0,
                columns={"old": np.asarray(answer.model_logp, np.float32)},
                values={"advantage": float(advantage), "share": share},
                origin=(group.task.id, len(group.prompt)),
            )
        )  # fmt: skip
    return Example(tuple(segments))


def _freeze(example: Example) -> list[dict[str, Any]]:
    """As JSON; a float32 survives the way through a double's shortest decimal unchanged."""
    return [
        {
            "tokens": s.tokens.tolist(), "weight": s.weight.tolist(), "parent": s.parent, "values": dict(s.values),
            "columns": {name: column.tolist() for name, column in s.columns.items()}, "origin": list(s.origin),
        }
        for s in example.segments
    ]  # fmt: skip


def _thaw(rows: Sequence[Mapping[str, Any]]) -> Example:
    return Example(
        tuple(
            Segment(
                np.asarray(row["tokens"], np.int32), np.asarray(row["weight"], np.float32), row["parent"],
                {name: np.asarray(column, np.float32) for name, column in row["columns"].items()},
                row["values"], (row["origin"][0], row["origin"][1]),
            )
            for row in rows
        )
    )  # fmt: skip


def read_tasks(
    paths: Sequence[Path], tokenizer: Tokenizer, room: int, on_error: OnError, account: Account
) -> list[Task]:
    """Tasks that can be scored here, and whose prompt leaves room for an answer of at least one token."""

    @functools.cache  # a failed search for protection is not kept by itself, and takes a while
    def unconfined() -> str:
        try:
            sandbox.protection()
        except sandbox.SandboxUnavailable as problem:
            return str(problem)
        return ""

    def use(place: str, task: Task) -> Task | None:
        verifiers.require(task)
        reason = ""
        if len(encode_prompt(tokenizer, task.messages)) >= room:
            reason = "the prompt fills the context"
        elif task.verifier == "python_tests":
            reason = unconfined()
        if reason:
            account.skip(place, reason)
        return None if reason else task

    return read_usable(paths, Task, tokenizer, on_error, account, use)


def run(config: Config, out: Path, redo: bool = False) -> None:
    replayed = config.replay.data if config.replay is not None else None
    with training_work("grpo", config, out, redo, model=config.model, tasks=config.tasks, replay=replayed) as (
        work,
        mesh,
    ):
        if not work.done:
            train(config, work, prepare(config, work, mesh), mesh)


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Rollouts]:
    """The model and the tasks; what was left out of them is recorded in ``work``."""
    decoder, tokenizer = load_start(config.model)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    account = Account()
    tasks = read_tasks(config.tasks, tokenizer, limit, config.on_error, account)
    account.record(work)
    replay = read_replay(config.replay, tokenizer, limit, config.on_error, config.seed + 1, work)
    reference = load_decoder(config.model).to(mesh.device) if config.beta else None
    objective: Objective = Grpo(
        config.variant, config.clip_low, config.high, config.beta, config.kl, config.rollout.max_new_tokens,
        config.rollout.temperature, on_policy=config.updates == 1,
    )  # fmt: skip
    if config.replay is not None:
        objective = WithReplay(objective, config.replay.coefficient)
    source = Rollouts(tasks, config, tokenizer, limit, reference, replay)
    return Training(with_context(decoder, limit), tokenizer, source, objective, config.steps)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    answers = config.rollout.prompts * config.rollout.samples
    return rollout_estimate(
        bench, config.model, config.tasks, config.steps, answers, config.rollout.max_new_tokens, config.compute,
        replay_tokens(config.replay, bench),
        lambda shape, compiled: tokens_per_second(
            shape, min(answers, config.rollout.max_rows), bench.seconds, config.dtype, compiled
        ),
    )  # fmt: skip
