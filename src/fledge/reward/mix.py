"""The reward of an answer: a weighted sum of clipped parts, each of them logged (SPEC J.7).

    rewards:
      - {kind: verifier}                                      # the task's own, the default
      - {kind: function, function: my.module:short, weight: 0.1, clip: [-1, 1]}
      - {kind: model, model: runs/x/reward, clip: [-3, 3]}
      - {kind: judge, judge: {endpoint: {url: "http://127.0.0.1:8000/v1", model: judge}}}
      - {kind: verifier, verifier: format, answer: {boxed: true}}   # the same for every task

A part that raises, gives no finite number or takes longer than its limit is counted, and the answer is left out of
training: not a reward of 0, which would teach. ``on_failure: stop`` ends the run instead.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from fledge.core.config import Config
from fledge.core.errors import DataError, FledgeError
from fledge.core.records import Message, Task
from fledge.reward import verifiers
from fledge.reward.functions import Function, FunctionFailed
from fledge.reward.judge import Judge, JudgeConfig

OnFailure = Literal["skip", "stop"]


class RewardPart(Config):
    kind: Literal["verifier", "function", "model", "judge"] = Field(
        default="verifier",
        description="verifier: the task's own; function: module:function(task, reply) -> a number; model: a reward "
        "model's folder; judge: a model behind an endpoint",
    )
    name: str = Field(default="", description="under which it is logged; default: the kind")
    function: str | None = Field(default=None, description="module:function, for kind function")
    model: Path | None = Field(default=None, description="folder of a reward model, for kind model")
    judge: JudgeConfig | None = Field(default=None, description="settings of the judge, for kind judge")
    verifier: str | None = Field(
        default=None, description="for kind verifier: this one with `answer`, for every task, not the task's own"
    )
    answer: dict[str, Any] = Field(default_factory=dict, description="what that verifier needs")
    weight: float = Field(default=1.0, description="0: logged only; where it fails no answer is left out")
    clip: tuple[float, float] | None = Field(default=None, description="[low, high], before the weight")
    seconds: float = Field(default=10.0, gt=0, description="limit of one answer of a function")

    @model_validator(mode="after")
    def _complete(self) -> RewardPart:
        for kind in ("function", "model", "judge"):
            given = getattr(self, kind) is not None
            if given != (self.kind == kind):
                raise ValueError(f"kind={self.kind} {'takes no' if given else 'needs a'} {kind}")
        if (self.verifier is not None or self.answer) and (self.kind != "verifier" or self.verifier is None):
            raise ValueError("verifier and answer go together, with kind=verifier")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip={list(self.clip)}: the first must be the lower")
        return self

    @property
    def label(self) -> str:
        return self.name or self.kind


@dataclass(frozen=True)
class Reply:
    """What is scored: the ``text`` of an answer's last turn. ``messages`` is the dialogue up to it: those of the task
    and, where a tool was called, the turns between."""

    task: Task
    text: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Failure:
    """Why a part has no value for an answer."""

    reason: str


Outcome = float | Failure
Scorer = Callable[[Sequence[Reply]], Sequence[Outcome]]  # one outcome a reply; not finite counts as a failure


@dataclass(frozen=True)
class Scored:
    """``total`` is None where a part failed; ``parts`` are before clip and weight."""

    total: float | None
    parts: Mapping[str, Outcome]


class Rewards:
    """``score(replies)``, and what to log of it."""

    def __init__(self, parts: Sequence[RewardPart], on_failure: OnFailure = "skip") -> None:
        """Loads functions and models. Raises ConfigError or ArtefactError where one cannot be."""
        labels = [part.label for part in parts]
        double = sorted({label for label in labels if labels.count(label) > 1})
        if double:
            raise FledgeError(f"rewards: several parts are called {', '.join(double)}; give each a name")
        self.parts, self.on_failure = tuple(parts), on_failure
        self.scorers = [_MAKERS[part.kind](part) for part in parts]
        self._warned: set[str] = set()

    @property
    def models(self) -> tuple[Path, ...]:
        """Folders that the reward depends on, for the artefact's inputs."""
        return models_of(self.parts)

    def score(self, replies: Sequence[Reply]) -> list[Scored]:
        """Raises FledgeError for a failure if ``on_failure`` is stop."""
        columns: dict[str, list[Outcome]] = {}
        for part, scorer in zip(self.parts, self.scorers, strict=True):
            columns[part.label] = [_finite(outcome) for outcome in scorer(replies)]
            self._look_at(part, replies, columns[part.label])
        rows = [{label: column[i] for label, column in columns.items()} for i in range(len(replies))]
        return [Scored(self._total(row), row) for row in rows]

    def statistics(self, scored: Sequence[Scored]) -> dict[str, float]:
        """Of each part: the mean of what it gave, the share at a limit of its clip, and how often it failed."""
        row: dict[str, float] = {}
        for part in self.parts:
            outcomes = [one.parts[part.label] for one in scored]
            values = [outcome for outcome in outcomes if isinstance(outcome, float)]
            if values:
                row[f"reward_{part.label}"] = math.fsum(values) / len(values)
            if values and part.clip is not None:
                low, high = part.clip
                row[f"at_clip_{part.label}"] = sum(not low < value < high for value in values) / len(values)
            row[f"failed_{part.label}"] = float(len(outcomes) - len(values))
        return row

    def _total(self, row: Mapping[str, Outcome]) -> float | None:
        total = 0.0
        for part in self.parts:
            outcome = row[part.label]
            if part.weight == 0:
                continue
            if isinstance(outcome, Failure):
                return None
            low, high = part.clip or (-math.inf, math.inf)
            total += part.weight * min(max(outcome, low), high)
        return total

    def _look_at(self, part: RewardPart, replies: Sequence[Reply], outcomes: Sequence[Outcome]) -> None:
        for reply, outcome in zip(replies, outcomes, strict=True):
            if not isinstance(outcome, Failure):
                continue
            problem = f"reward part {part.label!r} has no value for an answer to task {reply.task.id!r}: "
            problem += outcome.reason
            if self.on_failure == "stop" and part.weight:
                raise FledgeError(f"{problem} (on_failure=skip leaves such answers out of training and goes on)")
            if part.label not in self._warned:  # the rest is counted in the log
                self._warned.add(part.label)
                warnings.warn(f"{problem}; it and others like it are left out of training", stacklevel=4)


def models_of(parts: Sequence[RewardPart]) -> tuple[Path, ...]:
    return tuple(part.model for part in parts if part.model is not None)


def _finite(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Failure):
        return outcome
    return float(outcome) if math.isfinite(outcome) else Failure(f"it gave {outcome}")


class _Verifier:
    """The task's own, or the part's. A user's ``module:function`` runs in a process of its own."""

    def __init__(self, part: RewardPart) -> None:
        self.seconds = part.seconds
        self.functions: dict[str, Function] = {}
        self.instead: dict[str, Any] = {}
        if part.verifier is not None:
            self.instead = {"verifier": part.verifier, "answer": part.answer}
            asked = Message(role="user", content="?")
            verifiers.validate(Task(id=f"rewards.{part.label}", messages=(asked,), **self.instead))

    def __call__(self, replies: Sequence[Reply]) -> list[Outcome]:
        if self.instead:
            replies = [replace(reply, task=reply.task.model_copy(update=self.instead)) for reply in replies]
        outcomes: list[Outcome] = [Failure("")] * len(replies)
        ours = [place for place, reply in enumerate(replies) if ":" not in reply.task.verifier]
        for place, outcome in zip(ours, self._ours([replies[place] for place in ours]), strict=True):
            outcomes[place] = outcome
        for place in set(range(len(replies))) - set(ours):
            outcomes[place] = self._users(replies[place])
        return outcomes

    def _ours(self, replies: Sequence[Reply]) -> list[Outcome]:
        """Together, since code of many runs side by side; one by one where that fails, to find which."""
        try:
            return [score.value for score in verifiers.score_many([(reply.task, reply.text) for reply in replies])]
        except DataError as problem:
            if len(replies) == 1:
                return [Failure(str(problem))]
            return [outcome for reply in replies for outcome in self._ours([reply])]

    def _users(self, reply: Reply) -> Outcome:
        name = reply.task.verifier
        if name not in self.functions:
            self.functions[name] = Function(name, self.seconds)
        outcome = _called(self.functions[name], reply)
        if isinstance(outcome, float) and not 0 <= outcome <= 1:
            return Failure(f"verifier {name} gave {outcome}, which is not in [0, 1]")
        return outcome


def _function(part: RewardPart) -> Scorer:
    assert part.function is not None
    function = Function(part.function, part.seconds)
    return lambda replies: [_called(function, reply) for reply in replies]


def _called(function: Function, reply: Reply) -> Outcome:
    try:
        value = function(reply.task, reply.text)
    except FunctionFailed as problem:
        return Failure(str(problem))
    if not isinstance(value, int | float):
        return Failure(f"it gave {value!r}, which is no number")
    return float(value)


def _model(part: RewardPart) -> Scorer:
    from fledge.reward.model import RewardModel

    assert part.model is not None
    model = RewardModel(part.model)
    return lambda replies: model.score([(reply.messages, reply.text) for reply in replies]).tolist()


def _judge(part: RewardPart) -> Scorer:
    assert part.judge is not None
    judge = Judge(part.judge)

    def score(replies: Sequence[Reply]) -> list[Outcome]:
        verdicts = judge.rate([(reply.messages, reply.text) for reply in replies])
        return [Failure(v.failure) if v.value is None else v.value for v in verdicts]

    return score


_MAKERS: Mapping[str, Callable[[RewardPart], Scorer]] = {
    "verifier": _Verifier, "function": _function, "model": _model, "judge": _judge,
}  # fmt: skip
