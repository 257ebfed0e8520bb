"""Process rewards: a number for each step of an answer, not only for its end (2402.03300, section 4.1.3).

A step ends with the token in which the separator ends, so steps are cut by ids; texts are only what the function sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from fledge.core import config as core_config
from fledge.core.records import Task
from fledge.reward.functions import Function, FunctionFailed
from fledge.stages.turns import Answer, Rollout
from fledge.tokenizer.tokenizer import StreamDecoder, Tokenizer
from fledge.train.advantages import process_advantages
from fledge.train.batch import Example, Floats
from fledge.train.mesh import Mesh, from_first, only_first

Steps = tuple[np.ndarray, list[float]]  # the step of each token, and the reward of each step


class ProcessConfig(core_config.Config):
    function: str = Field(description="module:function(task, steps) -> a number for each step")
    separator: str = Field(default="\n", min_length=1, description="what a step ends with")
    coefficient: float = Field(default=1.0, gt=0, description="of its advantage, beside that of the whole answer")
    seconds: float = Field(default=10.0, gt=0, description="limit of one answer")


class Process:
    """Scores the steps of answers in a process of the user's function; with several ranks the first does, and the
    others are told."""

    def __init__(self, config: ProcessConfig, tokenizer: Tokenizer, mesh: Mesh) -> None:
        self.config, self.tokenizer, self.mesh = config, tokenizer, mesh
        self.function = only_first(lambda: Function(config.function, config.seconds), mesh)

    def score(
        self, groups: Sequence[Rollout], scaled: bool = True
    ) -> tuple[list[Rollout], list[list[Floats]], dict[str, float]]:
        """``scaled``: over the deviation of the group's steps.

        -> the groups without the answers whose steps have no rewards, for each group the advantage of every token
        of every answer left, and how often that failed."""
        kept, tables, failed, every = [], [], 0, []
        told = from_first(
            lambda: [[self._steps(group.task, answer) for answer in group.answers] for group in groups],
            self.mesh, _plain, _read,
        )  # fmt: skip
        for group, scored in zip(groups, told, strict=True):
            places = [place for place, steps in enumerate(scored) if steps is not None]
            found = [steps for steps in scored if steps is not None]
            failed += len(scored) - len(found)
            every += [reward for _, rewards in found for reward in rewards]
            answers, rewards = [group.answers[place] for place in places], [group.rewards[place] for place in places]
            kept.append(replace(group, answers=answers, rewards=rewards))
            advantages = process_advantages([rewards for _, rewards in found], scaled)
            tables.append(
                [
                    (self.config.coefficient * steps[of]).astype(np.float32)
                    for steps, (of, _) in zip(advantages, found, strict=True)
                ]
            )
        row = {"failed_process": float(failed)}
        return kept, tables, row | ({"reward_process": float(np.mean(every))} if every else {})

    def _steps(self, task: Task, answer: Answer) -> Steps | None:
        """None where the function gave no rewards."""
        assert self.function is not None  # the first rank
        of, texts = steps_of(answer, self.tokenizer, self.config.separator)
        try:
            rewards = self.function(task, texts)
        except FunctionFailed:
            return None
        usable = isinstance(rewards, list) and len(rewards) == len(texts)
        if not usable or not all(isinstance(r, int | float) and np.isfinite(r) for r in rewards):
            return None
        return of, [float(reward) for reward in rewards]


def _plain(told: Sequence[Sequence[Steps | None]]) -> list[list[Any]]:
    return [[found and (found[0].tolist(), found[1]) for found in scored] for scored in told]


def _read(rows: Sequence[Sequence[Any]]) -> list[list[Steps | None]]:
    return [[found and (np.asarray(found[0], np.int64), found[1]) for found in scored] for scored in rows]


def steps_of(answer: Answer, tokenizer: Tokenizer, separator: str) -> tuple[np.ndarray, list[str]]:
    """-> the step that each token belongs to (T,), and the texts of the steps. What a tool says ends a step."""
    decoder, of, texts = StreamDecoder(tokenizer), np.zeros(len(answer.tokens), np.int64), [""]
    for place, (token, own) in enumerate(zip(answer.tokens, answer.own, strict=True)):
        after_tool = place > 0 and own and not answer.own[place - 1]
        if texts[-1].strip() and (after_tool or separator in _without_first(texts[-1], separator)):
            texts.append("")
        of[place] = len(texts) - 1
        if own:
            texts[-1] += decoder.push(token)
    texts[-1] += decoder.flush()
    if len(texts) > 1 and not texts[-1].strip():  # the end token alone, after a separator
        texts.pop()
        of = np.minimum(of, len(texts) - 1)
    return of, texts


def _without_first(text: str, separator: str) -> str:
    """A step that begins with separators is not ended by them."""
    while text.startswith(separator):
        text = text[len(separator) :]
    return text


def with_process(example: Example, advantages: Sequence[Floats]) -> Example:
    """The column ``step_advantage`` on the answers of a group."""
    prompt, *answers = example.segments
    children = [segment.with_columns(step_advantage=a) for segment, a in zip(answers, advantages, strict=True)]
    return Example((prompt, *children))
