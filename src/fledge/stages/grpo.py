"""Stage grpo: tasks that can be scored -> a model that solves more of them, by policy gradients without a value model.

The family (SPEC J.4-J.6): GRPO, Dr. GRPO, DAPO, GSPO, RLOO, REINFORCE. They differ in what an answer's reward is
compared with (its advantage), in what the ratio of new to old policy is of, and in how tokens are averaged; `METHODS`
says it. A group is a prompt with G children, so the prompt is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor

from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.machine import compute_dtype
from fledge.core.records import Task
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder
from fledge.reward.mix import models_of
from fledge.stages.dialogues import Replay, WithReplay, read_replay
from fledge.stages.process import Process, ProcessConfig, with_process
from fledge.stages.reference import attach
from fledge.stages.rollouts import (
    Answer,
    OnlineConfig,
    OnlineSource,
    Rollout,
    Sampler,
    online_estimate,
    usable_tasks,
)
from fledge.stages.training import Training, load_start, train, training_work, with_context
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.advantages import RunningMean, group_advantages, kl_shaped, leave_one_out, overlong_penalty
from fledge.train.batch import Example, PackedBatch, Segment
from fledge.train.estimate import model_shape, reference_memory
from fledge.train.loop import GlobalBatch
from fledge.train.losses import KlEstimator, clipped_ratio, kl, truncated_weight
from fledge.train.mesh import Mesh
from fledge.train.objective import Objective, Outputs, Terms
from fledge.train.scoring import reference_logp, token_values
from fledge.train.trainee import Trainee

Variant = Literal["grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce"]
Span = Literal["token", "mean", "sum"]


@dataclass(frozen=True)
class Method:
    """What a variant is. ``span``: the ratio is of each token, or of an answer: exp of the mean (GSPO) or of the sum
    (its whole probability) of its tokens' log-ratios. ``average``: over answers of each answer's mean, over a constant
    number of tokens, or over all tokens."""

    baseline: Literal["group", "others", "past"]
    scaled: bool
    span: Span
    average: Literal["answers", "constant", "tokens"]
    low: float = 0.2
    high: float = 0.2
    kl_in: Literal["loss", "reward"] = "loss"


METHODS: dict[Variant, Method] = {
    "grpo": Method("group", True, "token", "answers"),  # 2402.03300, eq. 3
    "dr_grpo": Method("group", False, "token", "constant"),  # 2503.20783, section 3.2
    "dapo": Method("group", True, "token", "tokens", high=0.28),  # 2503.14476, eq. 8
    "gspo": Method("group", True, "mean", "answers", 3e-4, 4e-4),  # 2507.18071, eq. 5-7
    "rloo": Method("others", False, "sum", "answers", kl_in="reward"),  # 2402.14740, eq. 8
    "reinforce": Method("past", False, "sum", "answers", kl_in="reward"),  # Williams 1992
}


class Config(OnlineConfig):
    variant: Variant = Field(
        default="grpo",
        description="grpo: mean of each answer's mean; dr_grpo: sum over prompts x samples x max_new_tokens, no "
        "deviation; dapo: mean over all tokens; gspo: one ratio an answer; rloo: against the mean of the other "
        "answers; reinforce: against the running mean of past rewards",
    )
    scale_rewards: bool | None = Field(default=None, description="divide by the group's deviation; default: as variant")
    clip_low: float | None = Field(default=None, gt=0, description="default: .2, and 3e-4 for gspo (SPEC J.6)")
    clip_high: float | None = Field(default=None, gt=0, description="default: clip_low; .28 for dapo, 4e-4 for gspo")
    beta: float = Field(default=0.0, ge=0, description="coefficient of the KL term towards the start")
    kl: KlEstimator | None = Field(default=None, description="default: k3 in the loss, k1 in the reward")
    kl_in: Literal["loss", "reward"] | None = Field(
        default=None, description="default: reward for rloo and reinforce, else loss"
    )
    dynamic_sampling: int = Field(
        default=0,
        ge=0,
        description="dapo: sample again, so many rounds at most, for groups whose rewards are all equal",
    )
    overlong_buffer: int = Field(default=0, ge=0, description="dapo: soft punishment in the last so many tokens")
    updates: int = Field(default=1, gt=0, description="updates for each sampled batch")
    process: ProcessConfig | None = Field(default=None, description="rewards of steps beside those of whole answers")
    importance_cap: float = Field(
        default=0.0,
        ge=0,
        description="weigh by trainer's over engine's probability, at most so much (usual: 2); 0: not",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.rollout.prompts % self.updates:
            raise ValueError(f"rollout.prompts={self.rollout.prompts} must be a multiple of updates={self.updates}")
        if self.method.baseline != "past" and self.rollout.samples < 2:
            raise ValueError(f"variant={self.variant} compares answers of a prompt: rollout.samples must be at least 2")
        if self.scale_rewards is not None and self.method.baseline != "group":
            raise ValueError(f"variant={self.variant} has no deviation of a group: leave scale_rewards out")
        if self.overlong_buffer > self.rollout.max_new_tokens:
            raise ValueError(
                f"overlong_buffer={self.overlong_buffer} is more than rollout.max_new_tokens="
                f"{self.rollout.max_new_tokens}, so that every answer would be punished; take a part of it"
            )
        if self.process is not None and self.method.span != "token":
            raise ValueError(f"variant={self.variant} has one ratio an answer: process rewards need one a token")
        if self.place == "reward" and self.kl not in (None, "k1"):
            raise ValueError(f"kl={self.kl}: in the reward, where nothing is differentiated, only k1 is unbiased")
        return self

    @property
    def method(self) -> Method:
        return METHODS[self.variant]

    @property
    def place(self) -> Literal["loss", "reward"]:
        return self.kl_in or self.method.kl_in

    @property
    def scaled(self) -> bool:
        return self.method.scaled if self.scale_rewards is None else self.scale_rewards

    @property
    def low(self) -> float:
        return self.method.low if self.clip_low is None else self.clip_low

    @property
    def high(self) -> float:
        if self.clip_high is not None:
            return self.clip_high
        return self.method.high if self.clip_low is None or self.variant == "dapo" else self.clip_low

    def objective(self) -> Grpo:
        beta = self.beta if self.place == "loss" else 0.0
        return Grpo(
            self.variant, self.low, self.high, beta, self.kl or "k3", self.rollout.max_new_tokens,
            self.rollout.temperature, self.updates == 1, self.importance_cap,
        )  # fmt: skip


# Of the log-ratio of trainer to engine: where a bin begins
BINS = (-1.0, -0.1, -0.01, -0.001, 0.001, 0.01, 0.1, 1.0)


class Grpo:
    """A group's first segment is its prompt, which says how many ``samples`` and ``sampled`` tokens the group has, so
    that a group whose rewards are all equal can travel without its answers. Children have ``advantage``, ``share``
    (what each token counts) and the columns ``engine`` (the engine's log-probabilities), ``old`` (the trainer's when
    it was sampled) where there are several updates, ``reference`` where there is a KL term, and ``step_advantage``
    where there are process rewards.
    """

    def __init__(
        self, variant: Variant, low: float, high: float, beta: float = 0.0, estimator: KlEstimator = "k3",
        max_new_tokens: int = 1, temperature: float = 1.0, on_policy: bool = True, importance_cap: float = 0.0,
    ) -> None:  # fmt: skip
        self.method, self.low, self.high, self.beta, self.estimator = METHODS[variant], low, high, beta, estimator
        self.max_new_tokens, self.temperature, self.on_policy = max_new_tokens, temperature, on_policy
        self.cap = importance_cap

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        """At least 1, so that a batch of which nothing can be used is a step without a gradient, not an error."""
        values = [segment.values for e in examples for segment in e.segments]
        if self.method.average == "tokens":
            return {"policy": max(1.0, sum(v.get("sampled", 0.0) for v in values))}
        samples = max(1.0, sum(v.get("samples", 0.0) for v in values))
        return {"policy": samples * (self.max_new_tokens if self.method.average == "constant" else 1)}

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        share = batch.value("share")[batch.segment]  # (M,) 0 for what is not an answer of a group
        answers = (share > 0).float()
        logp, entropy = outputs.logp_and_entropy(self.temperature)
        # One update a rollout: the ratio is 1 by construction, whatever the engine's rounding
        old = logp.detach() if self.on_policy else batch.column("old")
        advantage = batch.value("advantage")[batch.segment] + batch.column("step_advantage")
        zero = torch.zeros_like(logp)
        ratio = self._over_span(batch, logp - old)
        loss = clipped_ratio(ratio, zero, advantage, self.low, self.high)
        engine = batch.column("engine")
        if self.cap:
            loss = loss * truncated_weight(self._over_span(batch, old - engine), zero, self.cap)
        metrics = self._metrics(ratio.detach(), logp.detach() - old, old - engine, entropy.detach(), answers)
        if self.beta:
            # what is no answer has no reference: its distance would be e^-logp, of which a mask makes no 0
            reference = torch.where(share > 0, batch.column("reference"), logp.detach())
            distance = kl(logp, reference, self.estimator)
            loss = loss + self.beta * distance
            metrics["kl"] = ((distance.detach() * answers).sum(), float(answers.sum()))
        return Terms({"policy": (loss * share).sum()}, metrics)

    def _over_span(self, batch: PackedBatch, log_ratio: Tensor) -> Tensor:
        """(M,) -> (M,): as it is, or its mean or sum over the answer, at each of the answer's tokens."""
        if self.method.span == "token":
            return log_ratio
        total = batch.segment_sum(log_ratio)
        if self.method.span == "mean":
            total = total / batch.segment_sum(torch.ones_like(log_ratio)).clamp(min=1)
        return total[batch.segment]

    def _metrics(
        self, log_ratio: Tensor, moved: Tensor, gap: Tensor, entropy: Tensor, answers: Tensor
    ) -> dict[str, tuple[Tensor | float, float]]:
        """``log_ratio`` as it is clipped; ``moved``: new policy to old; ``gap``: old policy to engine. Each (M,)"""
        count = float(answers.sum())
        ratio = log_ratio.exp()
        outside = ((ratio < 1 - self.low) | (ratio > 1 + self.high)).float()
        per_token = {"entropy": entropy, "engine_gap": gap.abs(), "clipped": outside}
        if not self.on_policy:
            per_token |= {"ratio": ratio, "ratio_square": ratio.square()}
            per_token["kl_old_new"] = kl(torch.zeros_like(moved), moved)  # sampled from the old
        edges = torch.tensor(BINS, device=gap.device)
        places = torch.bucketize(gap, edges)
        for place, begins in enumerate(("-inf", *BINS)):
            per_token[f"log_ratio_bin_{begins}"] = (places == place).float()
        return {name: ((values * answers).sum(), count) for name, values in per_token.items()}


class Groups(OnlineSource):
    """Source: groups with their advantages, cut into as many global batches as there are updates a rollout."""

    def __init__(self, sampler: Sampler, config: Config, reference: Decoder | None, replay: Replay | None) -> None:
        super().__init__(sampler, replay, config.dynamic_sampling)
        self.config, self.reference = config, reference
        self.process: Process | None = None
        if config.process is not None:
            self.process = Process(config.process, sampler.tokenizer, sampler.mesh)
        self.past = RunningMean()  # of all rewards so far, the KL term in it where it has one

    def state(self) -> dict[str, Any]:
        return {**super().state(), "past": self.past.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.past.load_state(state["past"])

    def batches(self, groups: Sequence[Rollout], models: Mapping[str, Trainee]) -> list[GlobalBatch]:
        config, policy = self.config, models["policy"]
        micro, temperature = config.loop.micro_tokens, config.rollout.temperature
        steps, row = None, dict[str, float]()
        if self.process is not None:
            groups, steps, row = self.process.score(groups, config.scaled)
        examples = [
            group.example(samples=float(len(group.answers)), sampled=float(sum(sum(a.own) for a in group.answers)))
            for group in groups
        ]
        if config.updates > 1:
            flat = token_values(examples, lambda batch: policy.logp(batch, temperature), micro, policy.mesh)
            examples = attach(examples, "old", flat)
        if config.beta:
            dtype = compute_dtype(config.dtype)
            reference = self.reference or policy.base_decoder()  # what adapters were put on is there already
            flat = reference_logp(examples, reference, dtype, micro, policy.mesh.device, temperature=temperature)
            examples = attach(examples, "reference", flat)
        if steps is not None:
            examples = [with_process(example, table) for example, table in zip(examples, steps, strict=True)]
        rewards, metrics = self._rewards(groups, examples)
        made = [
            with_advantages(example, self._advantages(r), config.method, always=config.objective().beta > 0)
            for example, r in zip(examples, rewards, strict=True)
        ]
        self.past.add([r for group in rewards for r in group])
        size = config.rollout.prompts // config.updates
        return [GlobalBatch(made[at : at + size], row | metrics) for at in range(0, len(made), size)]

    def _rewards(
        self, groups: Sequence[Rollout], examples: Sequence[Example]
    ) -> tuple[list[list[float]], dict[str, float]]:
        """Of each group's answers, with the KL term in it where the configuration has it there; then ``kl`` is the mean
        over answers of an answer's sum."""
        if self.config.place == "loss" or not self.config.beta:
            return [group.rewards for group in groups], {}
        distances = [[_distance(segment) for segment in example.segments[1:]] for example in examples]
        shaped = [
            [reward - self.config.beta * distance for reward, distance in zip(group.rewards, row, strict=True)]
            for group, row in zip(groups, distances, strict=True)
        ]
        flat = [distance for row in distances for distance in row]
        return shaped, {"kl": float(np.mean(flat))} if flat else {}

    def _advantages(self, rewards: Sequence[float]) -> np.ndarray:
        """(G,) A lone answer, where the others were left out, is compared with the past by RLOO (SPEC J.4)."""
        if self.config.method.baseline == "group":
            return group_advantages(rewards, self.config.scaled)
        if self.config.method.baseline == "others" and len(rewards) > 1:
            return leave_one_out(rewards)
        return np.asarray(rewards, np.float64) - self.past.mean


def _distance(segment: Segment) -> float:
    """Sum over an answer's own tokens of ln pi - ln ref, for the policy that sampled it."""
    own, columns = segment.weight > 0, segment.columns
    return -float(kl_shaped(0.0, columns.get("old", columns["engine"])[own], columns["reference"][own], 1.0).sum())


def with_advantages(example: Example, advantages: npt.ArrayLike, method: Method, always: bool = False) -> Example:
    """A group whose answers have these advantages (G,). Where all are 0, those of steps too, it travels as its prompt
    alone, which keeps the denominators as they are, unless its answers are to be trained on ``always`` (a KL term in
    the loss)."""
    values = np.asarray(advantages, np.float64)
    prompt, *answers = example.segments
    steps = [segment.columns["step_advantage"] for segment in answers if "step_advantage" in segment.columns]
    level = not values.any() and not any(column.any() for column in steps)
    if level and not always:
        return Example((prompt,))
    children = []
    for segment, advantage in zip(answers, values.tolist(), strict=True):
        own = int(np.count_nonzero(segment.weight))
        share = 1.0 / own if method.average == "answers" else 1.0
        children.append(replace(segment, values={"advantage": advantage, "share": share}))
    return Example((prompt, *children))


def run(config: Config, out: Path, redo: bool = False) -> None:
    replayed = config.replay.data if config.replay is not None else None
    with training_work(
        "grpo", config, out, redo, model=config.model, tasks=config.tasks, replay=replayed,
        reward=models_of(config.rewards) or None,
    ) as (work, mesh):  # fmt: skip
        if not work.done:
            train(config, work, prepare(config, work, mesh), mesh)


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Groups]:
    """The model and the tasks; what was left out of them is recorded in ``work``."""
    decoder, tokenizer = load_start(config.model)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    tasks = usable_tasks(config, tokenizer, limit, work, mesh)
    replay = read_replay(config.replay, tokenizer, limit, config.on_error, config.seed + 1, work)
    reference = None
    if config.beta and config.lora is None:
        reference = load_decoder(config.model).to(mesh.device, compute_dtype(config.dtype))
    objective: Objective = config.objective()
    if config.replay is not None:
        objective = WithReplay(objective, config.replay.coefficient)
    source = Groups(make_sampler(config, tasks, tokenizer, limit, mesh), config, reference, replay)
    return Training(with_context(decoder, limit), tokenizer, source, objective, config.steps)


def make_sampler(
    config: Config, tasks: Sequence[Task], tokenizer: Tokenizer, limit: int, mesh: Mesh | None = None
) -> Sampler:
    """With DAPO's punishment of answers that come near their limit, where it is asked for."""

    def adjust(answer: Answer, reward: float) -> float:
        return reward + overlong_penalty(sum(answer.own), config.rollout.max_new_tokens, config.overlong_buffer)

    return Sampler(tasks, config, tokenizer, limit, adjust if config.overlong_buffer else None, mesh)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """A forward pass before, where there are several updates, and one of the reference, where there is a KL."""
    facts = online_estimate(config, bench, config.updates, 1 + ((config.updates > 1) + (config.beta > 0)) / 3)
    if not config.beta or config.lora is not None:
        return facts
    beside = reference_memory(model_shape(bench, config.model), config.dtype)
    return {**facts, "memory_bytes": facts["memory_bytes"] + beside}
