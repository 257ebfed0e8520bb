"""Stage ppo: tasks and a reward -> a model that earns more of it, with a value model that learns beside it (SPEC J.2).

Four models: the policy, the value, the reference that the policy is held to, and what the reward is made of. Each
rollout samples two answers a prompt, spreads reward and KL over their tokens, and is trained on in minibatches for some
epochs. Qwen1's settings are the preset ``qwen1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from torch import Tensor

from fledge.core import config as core_config
from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.config import Preset
from fledge.core.machine import compute_dtype
from fledge.corpus.writing.shards import TokenShards
from fledge.model.decoder import Decoder
from fledge.model.scalar import load_scalar
from fledge.reward.mix import models_of
from fledge.stages.dialogues import Replay, WithReplay, read_replay
from fledge.stages.pretrain import BitsPerByte
from fledge.stages.ptx import NAME, Ptx, PtxConfig
from fledge.stages.reference import attach, load_reference, require_same_ids
from fledge.stages.rollouts import OnlineConfig, OnlineSource, RolloutConfig, Sampler, online_estimate, usable_tasks
from fledge.stages.training import Beside, Training, load_start, train, training_work, with_context
from fledge.stages.turns import Answer, Rollout
from fledge.train.advantages import Floats, RunningMean, adapted_kl, gae, kl_shaped, whiten
from fledge.train.batch import Example, PackedBatch, Segment
from fledge.train.estimate import model_shape, reference_memory, training_memory
from fledge.train.loop import GlobalBatch
from fledge.train.losses import clipped_ratio, clipped_value, kl
from fledge.train.mesh import Mesh
from fledge.train.objective import Objective, Outputs, Terms
from fledge.train.optimizer import OptimizerConfig
from fledge.train.scoring import reference_logp, token_values
from fledge.train.trainee import Trainee

Normalise = Literal["none", "mean", "mean_deviation"]


class PpoRollout(RolloutConfig):
    """Qwen1 samples two answers a prompt, with top-p .9 (2309.16609, section 3.2.2)."""

    samples: int = Field(default=2, ge=1, description="answers a prompt")
    top_p: float = Field(default=0.9, gt=0, le=1, description="log-probabilities stay those of the whole distribution")


class ValueConfig(core_config.Config):
    """The value model: what it starts from and how it learns."""

    start: Path | None = Field(
        default=None,
        description="a reward model's folder, whose body and head it takes over, or a language model's, which gets a "
        "head of zeros; default: the policy's",
    )
    optimizer: OptimizerConfig
    clip: float = Field(default=0.15, gt=0, description="values are held this near to what they were at sampling")
    warmup: int = Field(default=50, ge=0, description="updates at the start in which it alone learns: the policy waits")


class AdaptiveKl(core_config.Config):
    """The coefficient follows the measured KL (Ziegler et al. 2019, 1909.08593, section 2.2)."""

    target: float = Field(gt=0, description="nats an answer")
    horizon: float = Field(default=10_000.0, gt=0, description="answers in which an error of 20% changes it by 20%")


class Config(OnlineConfig):
    presets: ClassVar[Mapping[str, Preset]] = {
        "qwen1": Preset(
            {
                "optimizer": {"lr": 1e-6, "schedule": {"kind": "constant", "warmup": 0.0}},
                "value": {
                    "optimizer": {"lr": 5e-6, "schedule": {"kind": "constant", "warmup": 0.0}}, "clip": 0.15,
                    "warmup": 50,
                },
                "rollout": {"samples": 2, "top_p": 0.9},
                "beta": 0.04, "normalise": "mean",
            },
            "Qwen, 2309.16609, section 3.2.2: both rates, KL .04, two answers a query, top-p .9, value clip .15, 50 "
            "steps of the value alone, rewards less their running mean; clip .2, gamma 1, lambda .95, epochs, "
            "minibatches, constant rates and a pretraining gradient's coefficient are not published: ours",
        ),
    }  # fmt: skip

    steps: int = Field(default=150, gt=0, description="updates, those of the value alone included")
    rollout: PpoRollout = PpoRollout()
    value: ValueConfig
    reference: Path | None = Field(default=None, description="what the policy is held to; default: the start")
    epochs: int = Field(default=2, gt=0, description="passes over each rollout")
    minibatches: int = Field(default=2, gt=0, description="updates of a pass; each has whole prompts")
    clip: float = Field(default=0.2, gt=0, description="of the ratio to the policy that sampled")
    beta: float = Field(default=0.04, ge=0, description="coefficient of the KL to the reference in a token's reward")
    adaptive_kl: AdaptiveKl | None = Field(default=None, description="beta is then where it begins")
    normalise: Normalise = Field(
        default="mean", description="rewards less the mean of all so far, over their deviation too, or as they are"
    )
    cut_penalty: float = Field(default=0.0, ge=0, description="taken off the reward of an answer cut at the limit")
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    bootstrap: bool = Field(default=True, description="an answer cut at the limit goes on at its last state's value")
    whiten: bool = Field(default=True, description="advantages with mean 0 and deviation 1 over a rollout's tokens")
    ptx: PtxConfig | None = Field(default=None, description="pretraining gradient: text from token shards beside")
    held_out: Path | None = Field(
        default=None, description="token shards whose held-out text is measured in bits per byte; default: those of ptx"
    )
    held_out_tokens: int = Field(default=20_000, gt=0, description="of it, at each of loop.probe_steps")

    @model_validator(mode="after")
    def _policy_moves(self) -> Config:
        if self.value.warmup >= self.steps:
            raise ValueError(f"value.warmup={self.value.warmup} of steps={self.steps}: the policy would not be trained")
        return self

    @property
    def updates(self) -> int:
        """Of a rollout."""
        return self.epochs * self.minibatches


class Ppo:
    """Answers have the value ``answer`` and the columns ``old`` (log-probability when sampled), ``advantage``,
    ``value`` (of the state before each token, when sampled) and ``return``. Both losses are means over their tokens."""

    def __init__(self, clip: float, value_clip: float, temperature: float = 1.0) -> None:
        self.clip, self.value_clip, self.temperature = clip, value_clip, temperature

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        """At least 1, so that a rollout of which nothing can be used is a step without a gradient, not an error."""
        tokens = float(max(1, sum(example.trained for example in examples)))
        return {"policy": tokens, "value": tokens}

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        answers = batch.value("answer")[batch.segment]  # (M,) 0 for what is trained on beside
        return (self._value if module == "value" else self._policy)(batch, outputs, answers)

    def _policy(self, batch: PackedBatch, outputs: Outputs, answers: Tensor) -> Terms:
        logp, entropy = outputs.logp_and_entropy(self.temperature)
        old, count = batch.column("old"), float(answers.sum())
        loss = clipped_ratio(logp, old, batch.column("advantage"), self.clip, self.clip)
        now = logp.detach()
        ratio = (now - old).exp()
        per_token = {
            "entropy": entropy.detach(), "clipped": ((ratio - 1).abs() > self.clip).float(),
            "ratio": ratio, "ratio_square": ratio.square(), "kl_old_new": kl(old, now, "k3"),
            "engine_gap": (old - batch.column("engine")).abs(),
        }  # fmt: skip
        metrics = {name: ((values * answers).sum(), count) for name, values in per_token.items()}
        return Terms({"policy": (loss * answers).sum()}, {**metrics})

    def _value(self, batch: PackedBatch, outputs: Outputs, answers: Tensor) -> Terms:
        value, old, returns = outputs.scalars(), batch.column("value"), batch.column("return")
        loss, count = clipped_value(value, old, returns, self.value_clip), float(answers.sum())
        now = value.detach()
        outside = ((now - old).abs() > self.value_clip).float()
        metrics = {"error": (now - returns).square(), "clipped": outside}
        return Terms(
            {"value": (loss * answers).sum()}, {name: ((x * answers).sum(), count) for name, x in metrics.items()}
        )


class Rollouts(OnlineSource):
    """Rollouts as minibatches, with text of the pretraining gradient beside them once the policy moves."""

    def __init__(
        self, sampler: Sampler, config: Config, reference: Decoder, replay: Replay | None = None, ptx: Ptx | None = None
    ) -> None:
        super().__init__(sampler, replay)
        self.config, self.reference, self.ptx = config, reference, ptx
        self.rewards = RunningMean()
        self.beta = config.beta

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        batch = super().next(step, models)
        if self.ptx is None or not models["policy"].trains(step):
            return batch
        tokens = sum(example.tokens for example in batch.examples if not example.module)
        return GlobalBatch([*batch.examples, *self.ptx.next(tokens)], batch.metrics)

    def state(self) -> dict[str, Any]:
        text = self.ptx.state() if self.ptx is not None else None
        return {**super().state(), "rewards": self.rewards.state(), "beta": self.beta, "ptx": text}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.rewards.load_state(state["rewards"])
        self.beta = state["beta"]
        if self.ptx is not None:
            self.ptx.load_state(state["ptx"])

    def batches(self, groups: Sequence[Rollout], models: Mapping[str, Trainee]) -> list[GlobalBatch]:
        usable = [group for group in groups if group.answers]
        if not usable:
            return [GlobalBatch([group.example() for group in groups])]
        examples, metrics = self._experience(usable, models)
        batches = []
        for epoch in range(self.config.epochs):
            seeds = np.random.SeedSequence([self.config.seed, self.sampler.rounds, epoch])
            order = np.random.Generator(np.random.Philox(seeds)).permutation(len(examples))
            parts = np.array_split(order, self.config.minibatches)
            batches += [GlobalBatch([examples[i] for i in part], metrics) for part in parts if len(part)]
        return batches

    def _experience(
        self, groups: Sequence[Rollout], models: Mapping[str, Trainee]
    ) -> tuple[list[Example], dict[str, float]]:
        """The answers with all that is trained on. Log-probabilities are the trainer's own, not the engine's."""
        config, policy, value = self.config, models["policy"], models["value"]
        micro, temperature = config.loop.micro_tokens, config.rollout.temperature
        examples = [group.example() for group in groups]
        answers = [answer for group in groups for answer in group.answers]
        lengths = [sum(answer.own) for answer in answers]
        old = token_values(examples, lambda batch: policy.logp(batch, temperature), micro, policy.mesh)
        reference = reference_logp(
            examples, self.reference, compute_dtype(config.dtype), micro, policy.mesh.device, temperature=temperature
        )
        goes_on = [config.bootstrap and answer.reason == "length" for answer in answers]
        longer = with_ends(examples, goes_on)
        values = token_values(longer, lambda batch: value.read(batch, Outputs.scalars), micro, value.mesh)
        columns, metrics = self._advantages(
            self._normalised(np.array([reward for group in groups for reward in group.rewards])),
            _split(old, lengths), _split(reference, lengths), _split(values, np.add(lengths, goes_on)),
        )  # fmt: skip
        columns["old"] = np.asarray(old, np.float64)
        for name, column in columns.items():
            examples = attach(examples, name, column.astype(np.float32))
        return [_marked(example) for example in examples], metrics

    def _advantages(
        self, rewards: Floats, old: Sequence[Floats], reference: Sequence[Floats], values: Sequence[Floats]
    ) -> tuple[dict[str, Floats], dict[str, float]]:
        """Columns of all answers' tokens, behind each other. Values are one more than an answer has tokens where the
        answer was cut and is to go on at the last."""
        config, beta = self.config, self.beta
        shaped = [kl_shaped(r, o, q, beta) for r, o, q in zip(rewards, old, reference, strict=True)]
        before = [v[: len(s)] for v, s in zip(values, shaped, strict=True)]
        after = [float(v[-1]) if len(v) > len(s) else 0.0 for v, s in zip(values, shaped, strict=True)]
        estimates = [gae(s, v, end, config.gamma, config.lam) for s, v, end in zip(shaped, before, after, strict=True)]
        advantages, returns = (np.concatenate(parts) for parts in zip(*estimates, strict=True))
        distance = float(np.mean([(o - q).sum() for o, q in zip(old, reference, strict=True)]))
        value, spread = np.concatenate(before), float(returns.var())
        metrics = {
            "kl": distance,  # nats an answer, to the reference
            "kl_coefficient": beta,
            "reward_mean_so_far": self.rewards.mean,
            "reward_deviation_so_far": self.rewards.deviation,
            "value_mean": float(value.mean()),
            "return_mean": float(returns.mean()),
            "value_explained": 1 - float((returns - value).var()) / spread if spread > 0 else 0.0,
            "advantage_deviation": float(advantages.std()),
        }
        if (adaptive := config.adaptive_kl) is not None:
            self.beta = adapted_kl(beta, distance, adaptive.target, len(rewards), adaptive.horizon)
        return {
            "advantage": whiten(advantages) if config.whiten else advantages, "value": value, "return": returns,
        }, metrics  # fmt: skip

    def _normalised(self, rewards: Floats) -> Floats:
        """Those of this rollout are in the mean already: else the first would have none."""
        self.rewards.add(rewards)
        if self.config.normalise == "none":
            return rewards
        centred = rewards - self.rewards.mean
        deviation = self.rewards.deviation if self.config.normalise == "mean_deviation" else 0.0
        return centred / deviation if deviation > 0 else centred


def with_ends(examples: Sequence[Example], ends: Sequence[bool]) -> list[Example]:
    """The same with one token more behind each answer where ``ends`` says so: the state before it, which is the one
    after the answer's last token, is then read too. Which token it is plays no part."""
    flags = iter(ends)
    return [
        Example((example.segments[0], *(_longer(s) if next(flags) else s for s in example.segments[1:])))
        for example in examples
    ]


def _longer(segment: Segment) -> Segment:
    tokens, weight = np.append(segment.tokens, segment.tokens[-1]), np.append(segment.weight, np.float32(1))
    return Segment(tokens, weight, segment.parent, origin=segment.origin)


def _marked(example: Example) -> Example:
    prompt, *answers = example.segments
    return Example((prompt, *(s.with_values(answer=1.0) for s in answers)))


def _split(flat: npt.ArrayLike, lengths: npt.ArrayLike) -> list[Floats]:
    return np.split(np.asarray(flat, np.float64), np.cumsum(lengths)[:-1])


def run(config: Config, out: Path, redo: bool = False) -> None:
    shards = {config.ptx.shards} if config.ptx is not None else set()
    shards |= {config.held_out} if config.held_out is not None else set()
    with training_work(
        "ppo", config, out, redo, model=config.model, tasks=config.tasks, reference=config.reference,
        value=config.value.start, reward=models_of(config.rewards) or None,
        replay=config.replay.data if config.replay is not None else None, shards=sorted(shards) or None,
    ) as (work, mesh):  # fmt: skip
        if not work.done:
            train(config, work, prepare(config, work, mesh), mesh)


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Rollouts]:
    """The models and the tasks; what was left out of them is recorded in ``work``."""
    decoder, tokenizer = load_start(config.model)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    tasks = usable_tasks(config, tokenizer, limit, work, mesh)
    replay = read_replay(config.replay, tokenizer, limit, config.on_error, config.seed + 1, work)
    reference = load_reference(config.reference or config.model, config.model, tokenizer)
    reference = reference.to(mesh.device, compute_dtype(config.dtype))
    value = with_context(load_scalar(config.value.start or config.model, start="zero"), limit)
    require_same_ids(config.value.start or config.model, value, config.model, tokenizer, "value model")
    objective: Objective = Ppo(config.clip, config.value.clip, config.rollout.temperature)
    if config.replay is not None:
        objective = WithReplay(objective, config.replay.coefficient)
    ptx = None
    if config.ptx is not None:
        objective = WithReplay(objective, config.ptx.coefficient, NAME)
        ptx = Ptx(config.ptx, config.model, decoder, config.seed + 2)
    sampler = Sampler(tasks, config, tokenizer, limit, lambda answer, reward: penalised(config, answer, reward), mesh)
    beside = {"value": Beside(value, config.value.optimizer)}
    return Training(
        with_context(decoder, limit), tokenizer, Rollouts(sampler, config, reference, replay, ptx), objective,
        config.steps, _probe(config, decoder), beside=beside, frozen=config.value.warmup,
    )  # fmt: skip


def penalised(config: Config, answer: Answer, reward: float) -> float:
    return reward - config.cut_penalty if answer.reason == "length" else reward


def _probe(config: Config, decoder: Decoder) -> BitsPerByte | None:
    folder = config.held_out or (config.ptx.shards if config.ptx is not None else None)
    if folder is None:
        return None
    shards, context = TokenShards(folder, split="held_out"), decoder.config.max_position_embeddings
    return BitsPerByte(shards, context, config.held_out_tokens, config.loop.micro_tokens) if len(shards) else None


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Both models in every epoch, text beside the policy, and three forward passes before: old, reference, value."""
    text = config.ptx.ratio if config.ptx is not None else 0.0
    facts = online_estimate(config, bench, config.updates, config.epochs * (2 + text) + 1)
    shape = model_shape(bench, config.model)
    beside = training_memory(shape, 0, 0, config.dtype) + reference_memory(shape, config.dtype)
    return {**facts, "steps": config.steps, "memory_bytes": facts["memory_bytes"] + beside}
