"""Stage reward: answers in order of preference -> a model that gives an answer a number (SPEC J.1).

Qwen1's two steps are two runs of this stage: preference-model pretraining on many pairs, with ``language`` for the loss
on the good answer, and fine-tuning on few good ones, with ``model`` the first run's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from fledge.core.artefact import Work, write_json
from fledge.core.bench import Bench
from fledge.core.config import Preset
from fledge.core.errors import DataError
from fledge.core.machine import compute_dtype
from fledge.core.readers import OnError
from fledge.model.scalar import ScoreStart, load_scalar
from fledge.reward.best_of import BestOfConfig, measure_best_of, read_best_of
from fledge.stages.balance import TagOrder
from fledge.stages.dialogues import Account
from fledge.stages.held_out import HeldOut
from fledge.stages.rankings import Columns, Ranked, batch_pairs, read_rankings, split_by_prompt
from fledge.stages.sft import Shuffled
from fledge.stages.training import Training, TrainingConfig, load_with_tokenizer, train, training_work, with_context
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, PackedBatch
from fledge.train.estimate import stage_estimate
from fledge.train.losses import bradley_terry, centring
from fledge.train.mesh import Mesh
from fledge.train.objective import Outputs, Terms
from fledge.train.schedule import steps_of


class Config(TrainingConfig):
    presets: ClassVar[Mapping[str, Preset]] = {
        "qwen1": Preset(
            {
                "optimizer": {"lr": 3e-6, "schedule": {"kind": "constant", "warmup": 0}},
                "batch_size": 64, "max_tokens": 2048, "epochs": 1.0,
            },
            "Qwen, 2309.16609, section 3.2.1: rate, batch, length, one epoch; betas, decay and clip are our defaults",
        ),
    }  # fmt: skip

    model: Path = Field(description="the folder to start from: a language model, or a reward model to train further")
    data: tuple[Path, ...] = Field(min_length=1, description="pairs, or rankings of several answers (best first)")
    test: tuple[Path, ...] = Field(default=(), description="pairs or rankings to measure on, instead of held_out")
    held_out: float = Field(default=0.05, ge=0, lt=1, description="share of the prompts to measure on, without a test")
    score_start: ScoreStart = Field(
        default="normal", description="of a new head: normal with variance 1/(hidden size + 1), or zero"
    )
    margin: str | None = Field(
        default=None,
        description="key of a pair's meta with the number by which its chosen answer is better; of a ranking it is the "
        "difference of `scores`",
    )
    margin_scale: float = Field(
        default=0.0, ge=0, description="times this the margin stands in the loss; 0: only accuracy is told by margin"
    )
    centre: float = Field(default=0.0, ge=0, description="coefficient of (r+ + r-)², as .01: holds rewards about 0")
    language: float = Field(
        default=0.0, ge=0, description="coefficient of the best answers' mean negative log-likelihood, for PMP"
    )
    balance: str | None = Field(
        default=None, description="key of a row's meta with its tag or tags: every tag is drawn as often as every other"
    )
    epochs: float = Field(default=1.0, gt=0, description="Qwen1: 1 (SPEC J.1)")
    batch_size: int = Field(default=64, gt=0, description="prompts with their answers a step")
    max_tokens: int = Field(default=0, ge=0, description="longer answers are left out and counted; 0: the model's")
    best_of: BestOfConfig | None = Field(default=None, description="measure the best of n answers of a policy")
    on_error: OnError = "fail"

    @property
    def columns(self) -> Columns:
        return Columns(self.margin, self.balance)


class BradleyTerry:
    """Mean over rankings of the mean over their pairs, so that K answers to a prompt are one example of K(K-1)/2 pairs
    (InstructGPT, 2203.02155, eq. 1), not as many examples."""

    def __init__(self, margin_scale: float = 0.0, centre: float = 0.0, language: float = 0.0) -> None:
        self.margin_scale, self.centre, self.language = margin_scale, centre, language

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        segments = [segment for e in examples for segment in e.segments]
        rankings = sum(segment.values.get("first", 0.0) for segment in segments)
        wanted = {"pairs": rankings}
        if self.centre:
            wanted["centre"] = rankings / self.centre
        if self.language:
            wanted["language"] = float(sum(segment.weight.sum() for segment in segments)) / self.language
        return wanted

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        first, second = batch_pairs(batch)
        rewards, worth, share = outputs.end_scalars(), batch.value("worth"), batch.value("share")[first]
        better, worse = rewards[first], rewards[second]
        margin = self.margin_scale * (worth[first] - worth[second])
        sums = {"pairs": (bradley_terry(better, worse, margin) * share).sum()}
        if self.centre:
            sums["centre"] = (centring(better, worse) * share).sum()
        metrics = self._metrics(better.detach(), worse.detach())
        if self.language:
            sums["language"], logp = outputs.weighted_nll(batch.weight)
            metrics["nll"] = (-logp.sum(), float(len(logp)))
        return Terms(sums, metrics)

    def _metrics(self, better: Tensor, worse: Tensor) -> dict[str, tuple[Tensor | float, float]]:
        """Ties count half."""
        pairs, gap = float(len(better)), better - worse
        return {
            "accuracy": (((gap > 0).float() + 0.5 * (gap == 0).float()).sum(), pairs),
            "margin": (gap.sum(), pairs),
            "reward_chosen": (better.sum(), pairs),
            "reward_rejected": (worse.sum(), pairs),
        }


def run(config: Config, out: Path, redo: bool = False) -> None:
    measured = {} if config.best_of is None else {"policy": config.best_of.policy, "tasks": config.best_of.tasks}
    with training_work(
        "reward", config, out, redo, model=config.model, data=config.data, test=config.test or None, **measured
    ) as (work, mesh):
        if work.done:
            return
        training = prepare(config, work, mesh)
        train(config, work, training, mesh)
        source = training.source
        work.metrics["rows_never_taken"] = source.never_taken
        if isinstance(source.order, TagOrder):
            work.metrics["balance"] = source.order.account()
        if mesh.first:
            _measure(config, work, training)


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Shuffled]:
    """The model and the rankings; what was left out of them is recorded in ``work``."""
    start = partial(load_scalar, start=config.score_start, seed=config.seed, language_head=config.language > 0)
    decoder, tokenizer = load_with_tokenizer(config.model, start)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    if config.best_of is not None:
        read_best_of(config.best_of, config.model)  # what cannot be measured is told before training
    rows, held_out = _read(config, tokenizer, limit, work)
    order = TagOrder([row.tags for row in rows], config.seed) if config.balance is not None else None
    source = Shuffled([row.example for row in rows], config.batch_size, config.seed, order)
    probe = HeldOut(held_out, config.loop.micro_tokens) if held_out else None
    work.metrics["held_out_rows"] = len(held_out)
    steps = steps_of(len(rows), config.epochs, config.batch_size)
    objective = BradleyTerry(config.margin_scale, config.centre, config.language)
    return Training(with_context(decoder, limit), tokenizer, source, objective, steps, probe)


def _read(config: Config, tokenizer: Tokenizer, limit: int, work: Work) -> tuple[list[Ranked], list[Ranked]]:
    """Rows to train on, and those to measure on."""
    account = Account()
    rows = read_rankings(config.data, tokenizer, limit, config.on_error, account, config.columns, config.language > 0)
    account.record(work)
    if config.margin_scale and not any(segment.values.get("worth") for row in rows for segment in row.example.segments):
        raise DataError(
            f"margin_scale={config.margin_scale:g}, but no row has a margin: name the key of meta that holds it "
            "(margin), or give rankings with `scores`"
        )
    if config.test:
        test, columns = Account(), Columns(config.margin, config.balance, tagged=False)
        held_out = read_rankings(config.test, tokenizer, limit, config.on_error, test, columns)
        test.record(work, "test")
        return rows, held_out
    kept, held_out = split_by_prompt(rows, config.held_out, config.seed)
    if not kept:
        raise DataError(f"held_out={config.held_out:g} leaves none of {len(rows)} rows to train on")
    return kept, held_out


def _measure(config: Config, work: Work, training: Training[Shuffled]) -> None:
    """quality.json: all that is measured of the model as it was written, and its main figures as metrics."""
    quality: dict[str, Any] = {}
    if isinstance(training.probe, HeldOut):
        quality |= training.probe.measure(load_scalar(work.folder), compute_dtype(config.dtype))
        work.metrics |= {f"held_out_{key}": value for key, value in quality.items() if isinstance(value, float)}
    if config.best_of is not None:
        quality["best_of_n"] = measure_best_of(config.best_of, work.folder)
        work.metrics["best_of_n"] = quality["best_of_n"]["chosen"]
    if quality:
        write_json(work.folder / "quality.json", quality)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    return stage_estimate(bench, config.model, config.data, config.epochs, config.batch_size, config.compute)
