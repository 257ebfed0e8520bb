"""Stage dpo: pairs of answers -> a model that prefers the better one, without a reward model (SPEC I.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.numpy import load_file, save_file
from torch import Tensor

from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.errors import ArtefactError
from fledge.core.machine import compute_dtype
from fledge.core.progress import progress
from fledge.core.readers import OnError
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder
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
from fledge.stages.sft import Shuffled
from fledge.stages.shards import ids_hash
from fledge.stages.training import Training, TrainingConfig, load_start, train, training_work, with_context
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, PackedBatch
from fledge.train.estimate import stage_estimate
from fledge.train.loop import GlobalBatch
from fledge.train.losses import DpoLoss, dpo
from fledge.train.mesh import Mesh
from fledge.train.objective import Objective, Outputs, Terms
from fledge.train.schedule import steps_of
from fledge.train.scoring import reference_logp
from fledge.train.trainee import Trainee


class Config(TrainingConfig):
    model: Path = Field(description="the model folder to start from")
    reference: Path | None = Field(default=None, description="what the policy is held to; default: the start")
    data: tuple[Path, ...] = Field(min_length=1)
    beta: float = Field(default=0.1, gt=0)
    loss: DpoLoss = "sigmoid"
    smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="share of pairs taken to be the wrong way round")
    length_normalised: bool = Field(default=False, description="means over tokens instead of sums; ipo always does")
    nll: float = Field(default=0.0, ge=0, description="coefficient of the chosen answers' mean negative log-likelihood")
    replay: ReplayConfig | None = None
    epochs: float = Field(default=1.0, gt=0, description="Qwen2.5: 1 (SPEC I.1)")
    batch_size: int = Field(default=32, gt=0, description="pairs a step")
    max_tokens: int = Field(default=0, ge=0, description="longer pairs are left out and counted; 0: the model's")
    on_error: OnError = "fail"

    @model_validator(mode="after")
    def _smoothing_used(self) -> Config:
        if self.smoothing and self.loss not in ("cdpo", "rdpo"):
            raise ValueError(f"loss={self.loss} has no smoothing; choose cdpo or rdpo")
        return self


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
        margin = gain[chosen] - gain[rejected]
        sums = {"dpo": dpo(margin, self.beta, self.loss, self.smoothing).sum()}
        if self.nll:
            sums["nll"] = -(policy / lengths)[chosen].sum()
        return Terms(sums, self._metrics(margin.detach(), gain.detach(), policy.detach(), chosen, rejected))

    def _metrics(
        self, margin: Tensor, gain: Tensor, policy: Tensor, chosen: Tensor, rejected: Tensor
    ) -> dict[str, tuple[Tensor | float, float]]:
        """Implicit rewards b(ln pi - ln ref); ties count half."""
        pairs = float(len(margin))
        return {
            "accuracy": (((margin > 0).float() + 0.5 * (margin == 0).float()).sum(), pairs),
            "margin": (self.beta * margin.sum(), pairs),
            "reward_chosen": (self.beta * gain[chosen].sum(), pairs),
            "reward_rejected": (self.beta * gain[rejected].sum(), pairs),
            "logp_chosen": (policy[chosen].sum(), pairs),
            "logp_rejected": (policy[rejected].sum(), pairs),
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
    pairs = with_reference(pairs, reference, config, work.folder / "reference.safetensors", mesh)
    objective: Objective = Dpo(config.beta, config.loss, config.smoothing, config.length_normalised, config.nll)
    if config.replay is not None:
        objective = WithReplay(objective, config.replay.coefficient)
    source = Pairs(Shuffled(pairs, config.batch_size, config.seed), replay)
    steps = steps_of(len(pairs), config.epochs, config.batch_size)
    return Training(with_context(decoder, limit), tokenizer, source, objective, steps)


def load_reference(folder: Path, model: Path, tokenizer: Tokenizer) -> Decoder:
    """A reference is asked for the policy's ids, so they must mean the same to it."""
    decoder = load_decoder(folder)
    if (folder / "tokenizer.json").exists() and ids_hash(folder) != ids_hash(model):
        raise ArtefactError(f"{folder}: the reference has another tokenizer than {model}: the same ids mean other text")
    if decoder.config.vocab_size < tokenizer.vocab_size:
        raise ArtefactError(
            f"{folder}: the reference has {decoder.config.vocab_size} rows, "
            f"but the tokenizer of {model} {tokenizer.vocab_size} ids"
        )
    return decoder


def with_reference(
    pairs: Sequence[Example], reference: Decoder, config: Config, cache: Path, mesh: Mesh
) -> list[Example]:
    """Pairs with the column ``reference``. Computed once, in the policy's precision, and kept beside the snapshots:
    a resumed run reads it back."""
    if cache.exists():
        flat = load_file(cache)["logp"]
    else:
        with progress("reference", len(pairs), "pairs") as bar:
            flat = reference_logp(
                pairs, reference, compute_dtype(config.dtype), config.loop.micro_tokens, mesh.device, bar.advance
            )
        if mesh.first:
            temporary = cache.with_name(f".{cache.name}.tmp")
            save_file({"logp": flat}, temporary)
            temporary.replace(cache)
    return attach(pairs, "reference", flat)


def attach(examples: Sequence[Example], name: str, flat: np.ndarray) -> list[Example]:
    """Put a column of all trained tokens, in order, onto the segments."""
    result, at = [], 0
    for example in examples:
        segments = []
        for segment in example.segments:
            trained = segment.weight != 0
            column = np.zeros(len(segment.tokens), np.float32)
            count = int(trained.sum())
            column[trained] = flat[at : at + count]
            at += count
            segments.append(segment.with_columns(**{name: column}) if count else segment)
        result.append(replace(example, segments=tuple(segments)))
    if at != len(flat):
        raise ValueError(f"{len(flat)} values for {at} trained tokens")
    return result


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    return stage_estimate(
        bench, config.model, config.data, config.epochs, config.batch_size, config.compute, passes=4 / 3,
        replayed=replay_tokens(config.replay, bench),
    )  # fmt: skip
