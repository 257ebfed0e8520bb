"""Stage sft: conversations -> a chat model, by likelihood of the assistant's tokens (SPEC H)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.readers import OnError
from fledge.stages.dialogues import Account, read_conversations
from fledge.stages.training import EpochOrder, Training, TrainingConfig, load_start, train, training_work, with_context
from fledge.tokenizer.chat import Mask
from fledge.train.batch import Example
from fledge.train.estimate import stage_estimate
from fledge.train.loop import GlobalBatch
from fledge.train.mesh import Mesh
from fledge.train.objective import Likelihood
from fledge.train.schedule import steps_of
from fledge.train.trainee import Trainee


class Config(TrainingConfig):
    model: Path = Field(description="the model folder to start from")
    data: tuple[Path, ...] = Field(min_length=1)
    mask: Mask = "response"
    epochs: float = Field(default=2.0, gt=0, description="Qwen2: 2 (SPEC H.1)")
    batch_size: int = Field(default=64, gt=0, description="conversations a step")
    max_tokens: int = Field(default=0, ge=0, description="longer conversations lose their oldest turns; 0: the model's")
    on_error: OnError = "fail"


class Shuffled:
    """Source: examples in a seeded order, so many a step. A batch at the end of an epoch is filled from the next."""

    def __init__(self, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        self.examples, self.batch_size = examples, batch_size
        self.order = EpochOrder(len(examples), seed)

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        chosen = self.order.take_many(self.batch_size)
        return GlobalBatch([self.examples[i] for i in chosen], {"epoch": self.order.taken / self.order.count})

    def state(self) -> dict[str, Any]:
        return {"taken": self.order.taken}

    def load_state(self, state: dict[str, Any]) -> None:
        self.order.taken = state["taken"]

    @property
    def never_taken(self) -> int:
        """Examples that no batch has held so far."""
        return max(0, self.order.count - self.order.taken)


def run(config: Config, out: Path, redo: bool = False) -> None:
    with training_work("sft", config, out, redo, model=config.model, data=config.data) as (work, mesh):
        if work.done:
            return
        training = prepare(config, work, mesh)
        train(config, work, training, mesh)
        work.metrics["rows_never_taken"] = training.source.never_taken


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Shuffled]:
    """The model and the conversations; what was left out of them is recorded in ``work``."""
    decoder, tokenizer = load_start(config.model)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    account = Account()
    examples = read_conversations(config.data, tokenizer, config.mask, limit, config.on_error, account)
    account.record(work)
    steps = steps_of(len(examples), config.epochs, config.batch_size)
    source = Shuffled(examples, config.batch_size, config.seed)
    return Training(with_context(decoder, limit), tokenizer, source, Likelihood(), steps)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    return stage_estimate(
        bench, config.model, config.data, config.epochs, config.batch_size, config.compute
    )
