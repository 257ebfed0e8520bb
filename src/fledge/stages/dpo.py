"""Stage dpo: pairs of answers -> a model that prefers the better one, without a reward model (SPEC I.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fledge.core import config as core_config
from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.config import Preset
from fledge.core.machine import compute_dtype
from fledge.core.readers import OnError
from fledge.stages.dialogues import (
    Account,
    Replay,
    ReplayConfig,
    WithReplay,
    read_preferences,
    read_replay,
    replay_state,
    replay_tokens,
    restore_replay,
)
from fledge.stages.reference import FOLDER, load_reference, with_reference
from fledge.stages.sft import Shuffled
from fledge.stages.training import Training, TrainingConfig, load_start, train, training_work, with_context
from fledge.train.batch import Example, PackedBatch
from fledge.train.estimate import stage_estimate
from fledge.train.loop import GlobalBatch
from fledge.train.losses import SMOOTHED, DpoLoss, dpo
from fledge.train.mesh import Mesh
from fledge.train.objective import Objective, Outputs, Terms
from fledge.train.schedule import steps_of
from fledge.train.trainee import Trainee


class DpoSettings(core_config.Config):
    """Keys of the loss, offline and online."""

    beta: float = Field(default=0.1, gt=0, description="how strongly the policy is held to the reference")
    loss: DpoLoss = Field(default="sigmoid", description="see docs/alignment/preferences.md")
    smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="share of pairs taken to be the wrong way round")
    length_normalised: bool = Field(default=False, description="means over tokens instead of sums; ipo always does")
    nll: float = Field(default=0.0, ge=0, description="coefficient of the chosen answers' mean negative log-likelihood")

    @model_validator(mode="after")
    def _smoothing_used(self) -> DpoSettings:
        if self.smoothing and self.loss not in SMOOTHED:
            raise ValueError(f"loss={self.loss} has no smoothing; choose {', '.join(SMOOTHED)}")
        if self.loss == "exo" and not self.smoothing:
            raise ValueError("loss=exo needs smoothing above 0: the logarithm of it is in the loss")
        return self


class Config(TrainingConfig, DpoSettings):
    presets: ClassVar[Mapping[str, Preset]] = {
        "qwen2.5": Preset(
            {"optimizer": {"lr": 7e-7}, "epochs": 1.0, "beta": 0.1},
            "Qwen2.5, 2412.15115, section 4.2: rate, 1 epoch of 150,000 pairs, with the Online Merging Optimizer "
            "(give optimizer.merging.base and .sft); beta and batch are not published: beta .1",
        ),
        "ct-llm": Preset(
            {
                "optimizer": {"lr": 1e-6, "weight_decay": 0.1, "schedule": {"warmup": 0.03}},
                "epochs": 2.0, "batch_size": 4, "beta": 0.5,
            },
            "CT-LLM's model card: rate, warm-up, decay, epochs, beta .5; batch 4, on 8 GPUs, which may mean 32 in all; "
            "the fall after warm-up is not published: cosine to a tenth",
        ),
    }  # fmt: skip

    model: Path = Field(description="the model folder to start from")
    reference: Path | None = Field(default=None, description="what the policy is held to; default: the start")
    data: tuple[Path, ...] = Field(min_length=1)
    replay: ReplayConfig | None = None
    epochs: float = Field(default=1.0, gt=0, description="Qwen2.5: 1 (SPEC I.1)")
    batch_size: int = Field(default=32, gt=0, description="pairs a step")
    max_tokens: int = Field(default=0, ge=0, description="longer pairs are left out and counted; 0: the model's")
    on_error: OnError = "fail"


class Dpo:
    """A pair is an example whose two children have ``side`` +1 and -1 and the column ``reference``."""

    def __init__(
        self, beta: float, loss: DpoLoss = "sigmoid", smoothing: float = 0.0, length_normalised: bool = False,
        nll: float = 0.0,
    ) -> None:  # fmt: skip
        self.beta, self.loss, self.smoothing, self.nll = beta, loss, smoothing, nll
        self.mean = length_normalised or loss == "ipo"

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        pairs = sum(segment.values.get("side") == 1.0 for e in examples for segment in e.segments)
        return {"dpo": float(pairs), **({"nll": pairs / self.nll} if self.nll else {})}

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        chosen, rejected = (torch.nonzero(batch.value("side") == side)[:, 0] for side in (1.0, -1.0))
        logp = outputs.logp()
        policy, reference = batch.segment_sum(logp), batch.segment_sum(batch.column("reference"))
        lengths = batch.segment_sum(torch.ones_like(logp)).clamp(min=1)
        gain = policy - reference
        if self.mean:
            gain = gain / lengths
        sums = {"dpo": dpo(gain[chosen], gain[rejected], self.beta, self.loss, self.smoothing).sum()}
        if self.nll:
            sums["nll"] = -(policy / lengths)[chosen].sum()
        return Terms(sums, self._metrics(gain.detach(), policy.detach(), lengths, chosen, rejected))

    def _metrics(
        self, gain: Tensor, policy: Tensor, lengths: Tensor, chosen: Tensor, rejected: Tensor
    ) -> dict[str, tuple[Tensor | float, float]]:
        """Implicit rewards b(ln pi - ln ref); ties count half."""
        pairs, margin = float(len(chosen)), gain[chosen] - gain[rejected]
        return {
            "accuracy": (((margin > 0).float() + 0.5 * (margin == 0).float()).sum(), pairs),
            "margin": (self.beta * margin.sum(), pairs),
            "reward_chosen": (self.beta * gain[chosen].sum(), pairs),
            "reward_rejected": (self.beta * gain[rejected].sum(), pairs),
            "logp_chosen": (policy[chosen].sum(), pairs),
            "logp_rejected": (policy[rejected].sum(), pairs),
            "length_chosen": (lengths[chosen].sum(), pairs),
            "length_rejected": (lengths[rejected].sum(), pairs),
        }


class Pairs:
    """Source: pairs in a seeded order, with replayed dialogues beside them."""

    def __init__(self, pairs: Shuffled, replay: Replay | None) -> None:
        self.pairs, self.replay = pairs, replay

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        batch = self.pairs.next(step, models)
        extra = self.replay.next() if self.replay is not None else []
        return GlobalBatch([*batch.examples, *extra], batch.metrics)

    def state(self) -> dict[str, Any]:
        return {**self.pairs.state(), "replay": replay_state(self.replay)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.pairs.load_state(state)
        restore_replay(self.replay, state)


def run(config: Config, out: Path, redo: bool = False) -> None:
    replayed = config.replay.data if config.replay is not None else None
    with training_work(
        "dpo", config, out, redo, model=config.model, data=config.data, reference=config.reference, replay=replayed
    ) as (work, mesh):
        if work.done:
            return
        training = prepare(config, work, mesh)
        train(config, work, training, mesh)
        work.metrics["rows_never_taken"] = training.source.pairs.never_taken


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Pairs]:
    """The model and the pairs with what the reference says of them; what was left out is recorded in ``work``."""
    decoder, tokenizer = load_start(config.model)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    account = Account()
    pairs = read_preferences(config.data, tokenizer, limit, config.on_error, account)
    account.record(work)
    replay = read_replay(config.replay, tokenizer, limit, config.on_error, config.seed + 1, work)
    reference = decoder if config.reference is None else load_reference(config.reference, config.model, tokenizer)
    dtype, kept = compute_dtype(config.dtype), work.out.parent / FOLDER
    pairs, key = with_reference(pairs, reference, dtype, config.loop.micro_tokens, kept, mesh)
    work.metrics["reference"] = key
    objective: Objective = Dpo(config.beta, config.loss, config.smoothing, config.length_normalised, config.nll)
    if config.replay is not None:
        objective = WithReplay(objective, config.replay.coefficient)
    source = Pairs(Shuffled(pairs, config.batch_size, config.seed), replay)
    steps = steps_of(len(pairs), config.epochs, config.batch_size)
    return Training(with_context(decoder, limit), tokenizer, source, objective, steps)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    return stage_estimate(
        bench, config.model, config.data, config.epochs, config.batch_size, config.compute, passes=4 / 3,
        replayed=replay_tokens(config.replay, bench),
    )  # fmt: skip
