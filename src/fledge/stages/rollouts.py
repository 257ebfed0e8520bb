"""What the online stages share: answers sampled from the policy in training, scored, counted, held as exact state.

A stage gives `OnlineSource` one method, which turns the groups of a rollout into the global batches that are trained
on. What was sampled and not yet trained on is state, so a run that was killed goes on with the very same answers.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fledge.core import config as core_config
from fledge.core.artefact import Work
from fledge.core.bench import Bench
from fledge.core.errors import ConfigError, DataError
from fledge.core.readers import OnError
from fledge.core.records import Task
from fledge.generate.engine import Engine, Request
from fledge.generate.rate import tokens_per_second
from fledge.generate.sampling import Sampling
from fledge.model.compiled import compiled
from fledge.model.decoder import Decoder
from fledge.reward import sandbox, verifiers
from fledge.reward.guard import Guard, GuardConfig
from fledge.reward.mix import OnFailure, Reply, RewardPart, Rewards
from fledge.reward.tools import ToolConfig, make_tool
from fledge.stages.dialogues import (
    Account,
    Replay,
    ReplayConfig,
    read_usable,
    replay_state,
    replay_tokens,
    restore_replay,
)
from fledge.stages.training import EpochOrder, TrainingConfig
from fledge.stages.turns import Answer, Dialogues, Rollout
from fledge.tokenizer.chat import encode_prompt
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, Segment
from fledge.train.estimate import rollout_estimate
from fledge.train.loop import GlobalBatch
from fledge.train.mesh import Mesh, from_first, only_first
from fledge.train.trainee import Trainee

__all__ = ["Answer", "OnlineConfig", "OnlineSource", "Rollout", "RolloutConfig", "Sampler"]

LeaveOut = Literal["empty", "cut", "all_cut"]


class RolloutConfig(core_config.Config):
    """How answers are sampled. What generation_config.json says plays no part here (SPEC L.2)."""

    prompts: int = Field(default=16, gt=0, description="prompts a step")
    samples: int = Field(default=8, ge=1, description="answers a prompt: the group")
    max_new_tokens: int = Field(default=128, gt=0, description="of an answer, what a tool says in it too")
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1, description="log-probabilities stay those of the whole distribution")
    max_rows: int = Field(default=128, gt=0, description="answers generated side by side")
    paged: bool | None = Field(
        default=None,
        description="keys and values in pages, taken as answers grow, instead of a block for the longest answer; by "
        "default on CUDA where torch's varlen_attn reads them",
    )
    tool: ToolConfig | None = Field(default=None, description="what an answer may call; see reward.tools")
    leave_out: tuple[LeaveOut, ...] = Field(
        default=("empty", "all_cut"),
        description="answers that are counted but not trained on: empty, without a token; cut, that reached "
        "max_new_tokens; all_cut, of a prompt whose every answer did",
    )


class OnlineConfig(TrainingConfig):
    """Keys that every online stage has."""

    model: Path = Field(description="the model folder to start from")
    tasks: tuple[Path, ...] = Field(min_length=1)
    rewards: tuple[RewardPart, ...] = Field(default=(RewardPart(),), min_length=1, description="summed; see reward.mix")
    on_failure: OnFailure = Field(
        default="skip",
        description="where a part of the reward raised, hung or gave no number: skip leaves the answer out",
    )
    guard: GuardConfig | None = Field(default=None, description="a part that must not fall while the reward rises")
    rollout: RolloutConfig = RolloutConfig()
    steps: int = Field(default=50, gt=0)
    replay: ReplayConfig | None = None
    max_tokens: int = Field(default=0, ge=0, description="prompt and answer; 0: the model's")
    on_error: OnError = "fail"


Adjust = Callable[[Answer, float], float]


@dataclass(frozen=True)
class Sampled:
    """One round: the groups of answers, what each answer in turn is worth (None: a part of the reward failed), and
    statistics of the rewards."""

    groups: list[list[Answer]]
    totals: list[float | None]
    row: dict[str, float]

    def plain(self) -> dict[str, Any]:
        groups = [[answer.plain() for answer in group] for group in self.groups]
        return {"groups": groups, "totals": self.totals, "row": self.row}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Sampled:
        return cls([[Answer.read(answer) for answer in group] for group in row["groups"]], row["totals"], row["row"])


class Sampler:
    """Draws tasks in a seeded order, samples a group for each from the policy, scores it.

    With several ranks the first samples and scores, and the others are told: what takes too long, calls a tool or draws
    a number of its own would else part them.
    """

    def __init__(
        self, tasks: Sequence[Task], config: OnlineConfig, tokenizer: Tokenizer, limit: int,
        adjust: Adjust | None = None, mesh: Mesh | None = None,
    ) -> None:  # fmt: skip
        """``limit``: tokens of prompt and answer. ``adjust(answer, reward)`` is the stage's own change of a reward."""
        self.config, self.tokenizer, self.limit, self.adjust = config, tokenizer, limit, adjust
        self.mesh = mesh or Mesh()
        self.tasks, self.prompts = list(tasks), [encode_prompt(tokenizer, task.messages) for task in tasks]
        self.rewards = only_first(lambda: Rewards(config.rewards, config.on_failure), self.mesh)
        self.guard = guard_of(config)
        tool = config.rollout.tool
        made = only_first(lambda: make_tool(tool), self.mesh) if tool is not None else None
        self.dialogues = Dialogues(tokenizer, made, tool)
        self.order = EpochOrder(len(self.tasks), config.seed)
        self.rounds = 0  # of sampling so far: part of every answer's seed

    def sample(self, policy: Trainee, extra_rounds: int = 0) -> tuple[list[Rollout], dict[str, float]]:
        """``rollout.prompts`` groups, and statistics of all that was sampled for them.

        With ``extra_rounds`` groups whose rewards are all equal are replaced while rounds last (dynamic sampling, DAPO,
        2503.14476, section 3.2); where they run out, such groups fill up.
        """
        wanted = self.config.rollout.prompts
        every: list[Rollout] = []
        counts: list[dict[str, float]] = []
        for _ in range(1 + extra_rounds):
            groups, row = self._round(self.order.take_many(wanted), policy)
            every, counts = every + groups, [*counts, row]
            if sum(group.spread for group in every) >= wanted:
                break
        # as they were drawn: else the last updates of a rollout would be left those that teach nothing
        best = sorted(range(len(every)), key=lambda place: not every[place].spread)[:wanted]
        row = _of_rounds(counts)
        return [every[place] for place in sorted(best)], row | (self.guard.look(row) if self.guard is not None else {})

    def state(self) -> dict[str, Any]:
        guard = {"guard": self.guard.state()} if self.guard is not None else {}
        return {"taken": self.order.taken, "tasks": len(self.tasks), "rounds": self.rounds, **guard}

    def load_state(self, state: Mapping[str, Any]) -> None:
        before, now = state["tasks"], len(self.tasks)
        if before != now:
            raise DataError(
                f"this run was begun with {before} usable tasks and now has {now}, so others would be drawn: go on "
                "where code can be confined as it was then, or begin again with --redo"
            )
        self.order.taken, self.rounds = state["taken"], state["rounds"]
        if self.guard is not None:
            self.guard.load_state(state["guard"])

    def _round(self, indices: Sequence[int], policy: Trainee) -> tuple[list[Rollout], dict[str, float]]:
        model = policy.inference_decoder()  # every rank holds a part of it
        self.rounds += 1
        sampled = from_first(lambda: self._sampled(indices, model), self.mesh, Sampled.plain, Sampled.read)
        totals = iter(sampled.totals)
        rollouts = [
            self._rollout(index, answers, [next(totals) for _ in answers])
            for index, answers in zip(indices, sampled.groups, strict=True)
        ]
        return rollouts, sampled.row | _statistics(sampled.groups, rollouts)

    def _sampled(self, indices: Sequence[int], model: Decoder) -> Sampled:
        assert self.rewards is not None  # the first rank
        groups = self._answers(indices, model)
        replies = [
            Reply(self.tasks[index], answer.text, (*self.tasks[index].messages, *answer.turns))
            for index, answers in zip(indices, groups, strict=True)
            for answer in answers
        ]
        scored = self.rewards.score(replies)
        calls = self.dialogues.statistics([answer for group in groups for answer in group])
        return Sampled(groups, [one.total for one in scored], self.rewards.statistics(scored) | calls)

    def _answers(self, indices: Sequence[int], model: Decoder) -> list[list[Answer]]:
        rollout, stops = self.config.rollout, (self.tokenizer.im_end, self.tokenizer.endoftext)
        requests = []
        for place, index in enumerate(indices):
            seed = int(np.random.SeedSequence([self.config.seed, self.rounds - 1, place]).generate_state(1)[0])
            room = min(rollout.max_new_tokens, self.limit - len(self.prompts[index]))
            sampling = Sampling(temperature=rollout.temperature, top_p=rollout.top_p, max_new_tokens=room, seed=seed)
            requests.append(Request(self.prompts[index], rollout.samples, sampling, stops))
        # decoding is compiled where training is (config.compile)
        loops = None if compiled() else False
        engine = Engine((model, self.tokenizer), max_rows=rollout.max_rows, compile=loops, paged=rollout.paged)
        return self.dialogues.answers(engine, requests, [self.tasks[index] for index in indices])

    def _rollout(self, index: int, answers: Sequence[Answer], totals: Sequence[float | None]) -> Rollout:
        """The group without the answers that are not trained on."""
        out = self.config.rollout.leave_out
        all_cut = "all_cut" in out and all(answer.reason == "length" for answer in answers)
        kept: list[tuple[Answer, float]] = []
        for answer, total in zip(answers, totals, strict=True):
            cut = "cut" in out and answer.reason == "length"
            if total is None or all_cut or cut or ("empty" in out and answer.empty):
                continue
            kept.append((answer, self.adjust(answer, total) if self.adjust is not None else total))
        return Rollout(self.tasks[index], self.prompts[index], [a for a, _ in kept], [reward for _, reward in kept])


def guard_of(config: OnlineConfig) -> Guard | None:
    """Raises ConfigError where the guard watches what is no part, or one that is trained on."""
    if config.guard is None:
        return None
    watched = [part.label for part in config.rewards if part.weight == 0]
    if config.guard.part not in watched:
        there = ", ".join(watched) or "none"
        raise ConfigError(f"guard.part: {config.guard.part!r} is no part of rewards with weight 0; there are: {there}")
    return Guard(config.guard)


def _of_rounds(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the rounds that have a figure; failures are counted."""
    names = dict.fromkeys(name for row in rows for name in row)
    every = {name: [row[name] for row in rows if name in row] for name in names}
    return {
        name: math.fsum(values) / (1 if name.startswith("failed_") else len(values)) for name, values in every.items()
    }


def _statistics(groups: Sequence[Sequence[Answer]], rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Shares of all answers sampled, or of all groups; ``reward`` and its deviation are of the answers kept."""
    answers = [answer for group in groups for answer in group]
    rewards = [reward for rollout in rollouts for reward in rollout.rewards]
    row = {"reward": float(np.mean(rewards)), "reward_std": float(np.std(rewards))} if rewards else {}
    return row | {
        "groups_with_spread": float(np.mean([rollout.spread for rollout in rollouts])),
        "groups_all_cut": float(np.mean([all(a.reason == "length" for a in group) for group in groups])),
        "answer_tokens": float(np.mean([sum(answer.own) for answer in answers])),
        "cut_off": float(np.mean([answer.reason == "length" for answer in answers])),
        "empty": float(np.mean([answer.empty for answer in answers])),
        "left_out": 1 - len(rewards) / len(answers),
    }


class OnlineSource(ABC):
    """Source of an online stage. Each rollout becomes one or more global batches, which wait here for their step."""

    def __init__(self, sampler: Sampler, replay: Replay | None, extra_rounds: int = 0) -> None:
        self.sampler, self.replay, self.extra_rounds = sampler, replay, extra_rounds
        self.buffer: list[GlobalBatch] = []

    @abstractmethod
    def batches(self, groups: Sequence[Rollout], models: Mapping[str, Trainee]) -> list[GlobalBatch]:
        """The global batches that one rollout is trained on, in order, at least one; their metrics beside those of the
        rollout. An example may be in several."""

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        if not self.buffer:
            groups, row = self.sampler.sample(models["policy"], self.extra_rounds)
            made = self.batches(groups, models)
            self.buffer = [GlobalBatch(batch.examples, row | batch.metrics) for batch in made]
        batch = self.buffer.pop(0)
        # none is drawn for a policy that waits (PPO's first steps): it would not be trained on
        replayed = self.replay.next() if self.replay is not None and models["policy"].trains(step) else []
        return GlobalBatch([*batch.examples, *replayed], batch.metrics)

    def state(self) -> dict[str, Any]:
        held = {id(example): example for batch in self.buffer for example in batch.examples}
        place = {key: number for number, key in enumerate(held)}
        return {
            **self.sampler.state(),
            "replay": replay_state(self.replay),
            "examples": [freeze(example) for example in held.values()],
            "batches": [
                {"examples": [place[id(example)] for example in batch.examples], "metrics": batch.metrics}
                for batch in self.buffer
            ],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.sampler.load_state(state)
        restore_replay(self.replay, state)
        held = [thaw(rows) for rows in state["examples"]]
        self.buffer = [
            GlobalBatch([held[i] for i in batch["examples"]], batch["metrics"]) for batch in state["batches"]
        ]


def freeze(example: Example) -> list[dict[str, Any]]:
    """As JSON; a float32 survives the way through a double's shortest decimal unchanged."""
    return [
        {
            "tokens": s.tokens.tolist(), "weight": s.weight.tolist(), "parent": s.parent, "values": dict(s.values),
            "columns": {name: column.tolist() for name, column in s.columns.items()}, "origin": list(s.origin),
        }
        for s in example.segments
    ]  # fmt: skip


def thaw(rows: Sequence[Mapping[str, Any]]) -> Example:
    def floats(values: Sequence[float]) -> npt.NDArray[np.float32]:
        return np.asarray(values, np.float32)

    return Example(
        tuple(
            Segment(
                np.asarray(row["tokens"], np.int32), floats(row["weight"]), row["parent"],
                {name: floats(column) for name, column in row["columns"].items()},
                row["values"], (row["origin"][0], row["origin"][1]),
            )
            for row in rows
        )
    )  # fmt: skip


def read_tasks(
    paths: Sequence[Path], tokenizer: Tokenizer, room: int, on_error: OnError, account: Account,
    mesh: Mesh | None = None,
) -> list[Task]:  # fmt: skip
    """Tasks that can be scored here, and whose prompt leaves room for an answer of at least one token. With several
    ranks: that the first can score."""

    @functools.cache  # a failed search for protection is not kept by itself, and takes a while
    def unconfined() -> str:
        return from_first(without_sandbox, mesh or Mesh(), str, str)

    def without_sandbox() -> str:
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


def usable_tasks(config: OnlineConfig, tokenizer: Tokenizer, limit: int, work: Work, mesh: Mesh) -> list[Task]:
    """The stage's tasks; what was left out of them is recorded in ``work``."""
    account = Account()
    tasks = read_tasks(config.tasks, tokenizer, limit, config.on_error, account, mesh)
    account.record(work)
    return tasks


def online_estimate(config: OnlineConfig, bench: Bench, updates: int = 1, passes: float = 1.0) -> dict[str, Any]:
    """``updates``: steps of a rollout; ``passes``: of one model over each of its answers."""
    answers, rollouts = config.rollout.prompts * config.rollout.samples, math.ceil(config.steps / updates)
    return rollout_estimate(
        bench, config.model, config.tasks, rollouts, answers, config.rollout.max_new_tokens, config.compute,
        updates * replay_tokens(config.replay, bench),
        lambda shape, compiled: tokens_per_second(
            shape, min(answers, config.rollout.max_rows), bench.seconds, config.dtype, compiled
        ),
        passes,
    )  # fmt: skip
