"""Stage sft: conversations -> a chat model, by likelihood of the assistant's tokens (SPEC H)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from fledge.core import config as core_config
from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.config import Preset
from fledge.core.readers import OnError
from fledge.stages.dialogues import Account, read_conversations
from fledge.stages.training import (
    EpochOrder,
    Order,
    Training,
    TrainingConfig,
    load_start,
    train,
    training_work,
    with_context,
)
from fledge.tokenizer.chat import Mask
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example
from fledge.train.estimate import stage_estimate
from fledge.train.loop import GlobalBatch
from fledge.train.mesh import Mesh
from fledge.train.objective import Likelihood
from fledge.train.schedule import steps_of
from fledge.train.trainee import Trainee

_DECAY = {"weight_decay": 0.1, "clip": 1.0}
_QWEN2 = {
    "optimizer": {"lr": 7e-6, **_DECAY, "schedule": {"kind": "cosine", "floor": 0.1}},
    "epochs": 2.0, "max_tokens": 32_768,
}  # fmt: skip


class DataSet(core_config.Config):
    """A file of conversations; a path alone is one without a weight."""

    path: Path
    weight: float | None = Field(
        default=None, gt=0, description="share of the trained tokens, beside the other sets' weights"
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str | Path) else given


class Config(TrainingConfig):
    presets: ClassVar[Mapping[str, Preset]] = {
        "qwen1": Preset(
            {
                "optimizer": {
                    "lr": 2e-6, "betas": [0.9, 0.95], "eps": 1e-8, **_DECAY,
                    "schedule": {"kind": "cosine", "warmup": 0.3575, "floor": 0.1},  # 1,430 steps of 4,000
                },
                "steps": 4000, "batch_size": 128, "max_tokens": 2048, "mask": "qwen1", "dropout": 0.1,
            },
            "Qwen, 2309.16609, section 3.1; the mask is that of its finetune.py; the fall after warm-up is not "
            "published: cosine to a tenth",
        ),
        "qwen2": Preset(
            _QWEN2, "Qwen2, 2407.10671, section 4.2: 7e-6 to 7e-7; its shape, warm-up and batch are not published"
        ),
        "qwen2.5": Preset(
            _QWEN2, "Qwen2.5, 2412.15115, section 4.1: 7e-6 to 7e-7; its shape, warm-up and batch are not published"
        ),
        "ct-llm": Preset(
            {"optimizer": {"lr": 2e-5, **_DECAY}, "epochs": 3.0, "batch_size": 128, "max_tokens": 2048},
            "CT-LLM, 2404.04167: peak rate, length, batch, decay and clip, as they are quoted (not checked against its "
            "text); its epochs are not published: 3",
        ),
    }  # fmt: skip

    model: Path = Field(description="the model folder to start from")
    data: tuple[DataSet, ...] = Field(min_length=1)
    mask: Mask = "response"
    epochs: float | None = Field(default=None, gt=0, description="default: 2 (Qwen2), where no steps are given")
    steps: int | None = Field(default=None, gt=0, description="instead of epochs")
    batch_size: int = Field(default=64, gt=0, description="conversations a step")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of embeddings and of what each layer adds to them")
    max_tokens: int = Field(default=0, ge=0, description="longer conversations lose their oldest turns; 0: the model's")
    on_error: OnError = "fail"

    @model_validator(mode="after")
    def _all_or_no_weights(self) -> Config:
        bare = [str(part.path) for part in self.data if part.weight is None]
        if bare and len(bare) < len(self.data):
            raise ValueError(f"data: give all sets a weight or none of them ({bare[0]} has none)")
        return self

    @property
    def weighted(self) -> bool:
        return self.data[0].weight is not None

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(part.path for part in self.data)

    @model_validator(mode="after")
    def _one_length(self) -> Config:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"epochs={self.epochs:g} and steps={self.steps}: give one of them, and null for one that a preset gives"
            )
        return self

    @property
    def passes(self) -> float:
        """Over the data, where no number of steps is given."""
        return 2.0 if self.epochs is None else self.epochs


class Shuffled:
    """Source: examples in a seeded order, so many a step. A batch at the end of an epoch is filled from the next."""

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int, order: Order | None = None) -> None:
        """``order``: another than one epoch after another."""
        self.examples, self.batch_size = examples, batch_size
        self.order: Order = order or EpochOrder(len(examples), seed)

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        chosen = self.order.take_many(self.batch_size)
        return GlobalBatch([self.examples[i] for i in chosen], {"epoch": self.order.epochs})

    def state(self) -> dict[str, Any]:
        return self.order.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.order.load_state(state)

    @property
    def never_taken(self) -> int:
        """Examples that no batch has held so far."""
        return self.order.never_taken


def run(config: Config, out: Path, redo: bool = False) -> None:
    with training_work("sft", config, out, redo, model=config.model, data=config.paths) as (work, mesh):
        if work.done:
            return
        training = prepare(config, work, mesh)
        train(config, work, training, mesh)
        work.metrics["rows_never_taken"] = training.source.never_taken
        if config.weighted:
            from fledge.stages.mixing import MixedOrder

            assert isinstance(training.source.order, MixedOrder)
            work.metrics["data_sets"] = training.source.order.shares()


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Shuffled]:
    """The model and the conversations; what was left out of them is recorded in ``work``."""
    decoder, tokenizer = load_start(config.model)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    account = Account()
    source = conversations(config, config.paths, tokenizer, limit, account)
    account.record(work)
    steps = config.steps or steps_of(len(source.examples), config.passes, config.batch_size)
    return Training(with_context(decoder, limit), tokenizer, source, Likelihood(), steps, dropout=config.dropout)


def conversations(
    config: Config, paths: Sequence[Path], tokenizer: Tokenizer, limit: int, account: Account
) -> Shuffled:
    """The data as they are read at ``paths``, in the order in which they are trained on."""
    sets = [read_conversations([path], tokenizer, config.mask, limit, config.on_error, account) for path in paths]
    examples = [example for part in sets for example in part]
    if not config.weighted:
        return Shuffled(examples, config.batch_size, config.seed)
    from fledge.stages.mixing import order_of_sets

    ends = np.cumsum([len(part) for part in sets])
    members = np.split(np.arange(len(examples)), ends[:-1])
    sizes = np.array([example.trained for example in examples], np.int64)
    names = [f"{place} {part.path.name}" for place, part in enumerate(config.data)]
    order = order_of_sets(names, members, sizes, [part.weight or 0.0 for part in config.data], config.seed)
    return Shuffled(examples, config.batch_size, config.seed, order)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    return stage_estimate(
        bench, config.model, config.paths, config.passes, config.batch_size, config.compute, steps=config.steps
    )
