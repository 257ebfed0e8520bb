"""Stage online-dpo: answers of the policy itself, the best against the worst (Qwen2, section 4.3; SPEC I.4, R.9).

Each step samples n answers for each prompt from the weights in training, scores them, and makes one DPO step on the
best and the worst answer of each prompt; the reference stays the start. ``mode=rs_sft`` imitates the best alone
(rejection sampling). A prompt whose answers tell nothing apart gives no pair, and is counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.config import Preset
from fledge.core.machine import compute_dtype
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder
from fledge.reward.mix import models_of
from fledge.stages.dialogues import Replay, WithReplay, prompt_segment, read_replay
from fledge.stages.dpo import Dpo, DpoSettings
from fledge.stages.reference import attach, load_reference
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
from fledge.train.batch import Example, PackedBatch, empty_example
from fledge.train.estimate import model_shape, reference_memory
from fledge.train.loop import GlobalBatch
from fledge.train.mesh import Mesh
from fledge.train.objective import Likelihood, Objective, Outputs, Terms
from fledge.train.scoring import reference_logp
from fledge.train.trainee import Trainee

# Why a prompt gives no pair, as it is logged
FEW, TIE, CLOSE, EQUAL = "no_pair_few_answers", "no_pair_tie", "no_pair_close", "no_pair_equal_answers"


class Config(OnlineConfig, DpoSettings):
    presets: ClassVar[Mapping[str, Preset]] = {
        "qwen2": Preset(
            {"optimizer": {"lr": 7e-7}, "beta": 0.1, "rollout": {"samples": 8, "temperature": 1.0, "top_p": 1.0}},
            "Qwen2, 2407.10671, section 4.3: best against worst of the current policy, with the Online Merging "
            "Optimizer (give optimizer.merging.base and .sft). No number of it is published: 8 samples as Qwen2.5 has "
            "for GRPO, the rate of its offline DPO",
        )
    }

    mode: Literal["best_worst_dpo", "rs_sft"] = Field(
        default="best_worst_dpo", description="rs_sft: likelihood of the best answer instead of a pair"
    )
    reference: Path | None = Field(default=None, description="what the policy is held to; default: the start")
    min_spread: float = Field(
        default=0.0, ge=0, description="a prompt counts where its best reward is above its worst by more than this"
    )
    missing_end_penalty: float = Field(
        default=0.0, ge=0, description="taken from the reward of an answer that was cut off before its end token"
    )
    more_rounds: int = Field(
        default=0, ge=0, description="sample other prompts, so many rounds at most, for those whose rewards are equal"
    )

    @model_validator(mode="after")
    def _has_pairs(self) -> Config:
        if self.rollout.samples < 2:
            raise ValueError("rollout.samples=1: the best and the worst of one answer are the same; take at least 2")
        if self.missing_end_penalty and "cut" in self.rollout.leave_out:
            raise ValueError("missing_end_penalty has nothing to act on: rollout.leave_out holds cut")
        return self


class OnlineDpo(Dpo):
    """`Dpo` where a batch may have no pair: its loss is then 0. Where answers are sampled at temperature 1,
    ``engine_gap`` is how far the engine's log-probabilities are from the trainer's."""

    def __init__(self, settings: DpoSettings, compare: bool) -> None:
        super().__init__(settings.beta, settings.loss, settings.smoothing, settings.length_normalised, settings.nll)
        self.compare = compare

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        known = super().denominators(examples)
        return known if known["dpo"] else dict.fromkeys(known, 1.0)

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        terms = super().terms(batch, outputs, module)
        answers = batch.value("side")[batch.segment].abs()
        if self.compare and bool(answers.any()):
            gap = (outputs.logp().detach() - batch.column("engine")).abs() * answers
            terms.metrics["engine_gap"] = (gap.sum(), float(answers.sum()))
        return terms


class BestOnly(Likelihood):
    """Mean negative log-likelihood of the best answers' tokens; 0 where a batch has none."""

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        return {"nll": super().denominators(examples)["nll"] or 1.0}

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        answers = batch.value("side")[batch.segment]  # 0: replayed dialogues, which have a term of their own
        total, _ = outputs.weighted_nll(batch.weight * answers)
        return Terms({"nll": total})


class Contests(OnlineSource):
    """Source: the best and the worst answer of each prompt, or the best alone."""

    def __init__(self, sampler: Sampler, config: Config, reference: Decoder | None, replay: Replay | None) -> None:
        super().__init__(sampler, replay, config.more_rounds)
        self.config, self.reference = config, reference

    def batches(self, groups: Sequence[Rollout], models: Mapping[str, Trainee]) -> list[GlobalBatch]:
        """One, so that every update is on answers of the weights that it changes."""
        config, policy = self.config, models["policy"]
        counts: Counter[str] = Counter()
        contests = [found for group in groups if (found := contest(group, config.min_spread, counts)) is not None]
        metrics = {name: float(counts[name]) for name in (FEW, TIE, CLOSE, EQUAL)} | {"pairs": float(len(contests))}
        if contests:
            metrics["reward_best"] = float(np.mean([group.rewards[best] for group, best, _ in contests]))
            metrics["reward_worst"] = float(np.mean([group.rewards[worst] for group, _, worst in contests]))
        if config.mode == "rs_sft":
            examples = [chosen_example(group, {best: 1.0}) for group, best, _ in contests]
        else:
            examples = [chosen_example(group, {best: 1.0, worst: -1.0}) for group, best, worst in contests]
        if self.reference is not None and examples:
            dtype, micro = compute_dtype(config.dtype), config.loop.micro_tokens
            flat = reference_logp(examples, self.reference, dtype, micro, policy.mesh.device)
            examples = attach(examples, "reference", flat)
        return [GlobalBatch(examples or [empty_example()], metrics)]


def contest(group: Rollout, min_spread: float, counts: Counter[str]) -> tuple[Rollout, int, int] | None:
    """(group, place of the best answer, place of the worst): the first of equal ones. None, with the reason counted,
    where rewards are equal or closer than ``min_spread``, or both answers have the same ids."""
    reason = ""
    if len(group.answers) < 2:
        reason = FEW
    elif not group.spread:
        reason = TIE
    elif max(group.rewards) - min(group.rewards) <= min_spread:
        reason = CLOSE
    if not reason:
        best, worst = (group.rewards.index(pick(group.rewards)) for pick in (max, min))
        if group.answers[best].tokens != group.answers[worst].tokens:
            return group, best, worst
        reason = EQUAL
    counts[reason] += 1
    return None


def chosen_example(group: Rollout, sides: Mapping[int, float]) -> Example:
    """The prompt with the answers at these places as its children; ``side`` +1 for the better, -1 for the worse."""
    origin = (group.task.id, len(group.prompt))
    answers = [replace(group.answers[place].segment(origin), values={"side": side}) for place, side in sides.items()]
    return Example((prompt_segment(group.prompt, (group.task.id, 0)), *answers))


def run(config: Config, out: Path, redo: bool = False) -> None:
    replayed = config.replay.data if config.replay is not None else None
    with training_work(
        "online-dpo", config, out, redo, model=config.model, tasks=config.tasks, reference=config.reference,
        replay=replayed, reward=models_of(config.rewards) or None,
    ) as (work, mesh):  # fmt: skip
        if not work.done:
            train(config, work, prepare(config, work, mesh), mesh)


def prepare(config: Config, work: Work, mesh: Mesh) -> Training[Contests]:
    """The model, the reference and the tasks; what was left out of them is recorded in ``work``."""
    decoder, tokenizer = load_start(config.model)
    limit = config.max_tokens or decoder.config.max_position_embeddings
    tasks = usable_tasks(config, tokenizer, limit, work, mesh)
    replay = read_replay(config.replay, tokenizer, limit, config.on_error, config.seed + 1, work)
    reference: Decoder | None = None
    objective: Objective = BestOnly()
    if config.mode == "best_worst_dpo":
        held = config.reference
        reference = load_decoder(config.model) if held is None else load_reference(held, config.model, tokenizer)
        reference = reference.to(mesh.device, compute_dtype(config.dtype))
        objective = OnlineDpo(config, compare=config.rollout.temperature == 1.0)
    if config.replay is not None:
        objective = WithReplay(objective, config.replay.coefficient)

    def adjust(answer: Answer, reward: float) -> float:
        return reward - config.missing_end_penalty * (answer.reason == "length")

    sampler = Sampler(tasks, config, tokenizer, limit, adjust, mesh)
    source = Contests(sampler, config, reference, replay)
    return Training(with_context(decoder, limit), tokenizer, source, objective, config.steps)


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Every answer is sampled; the best and the worst are trained on, and read by the reference before, or the best
    alone is trained on."""
    if config.mode == "rs_sft":
        return online_estimate(config, bench, passes=1 / config.rollout.samples)
    facts = online_estimate(config, bench, passes=2 / config.rollout.samples * 4 / 3)
    beside = reference_memory(model_shape(bench, config.model), config.dtype)
    return {**facts, "memory_bytes": facts["memory_bytes"] + beside}
