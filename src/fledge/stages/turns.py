"""Answers of one turn or, where a tool may be called, of several: the dialogue grows by ids (promise 4).

What the tool says stands within the answer and is not the model's own: it is never trained on. An answer's tokens, the
tool's among them, are at most ``room``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from fledge.core.records import Message, Task
from fledge.generate.engine import Completion, Engine, Request
from fledge.generate.sampling import Sampling
from fledge.reward.tools import Said, Tool, ToolConfig, find_call
from fledge.stages.dialogues import prompt_segment
from fledge.tokenizer.chat import encode_continuation
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.batch import Example, Segment

Reason = Literal["stop", "length"]


@dataclass
class Answer:
    """What follows the prompt. ``text`` is the last turn's; ``turns`` stand before it: the model's calls and what the
    tool said to them."""

    tokens: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)  # of each token: the model said it
    # the engine's, under the whole distribution at the sampling temperature; 0 where a tool speaks
    logp: list[float] = field(default_factory=list)
    reason: Reason = "stop"
    text: str = ""
    turns: tuple[Message, ...] = ()
    failed_calls: int = 0

    @property
    def empty(self) -> bool:
        """No token but the one that ends the turn."""
        return sum(self.own) <= (1 if self.reason == "stop" else 0)

    @property
    def calls(self) -> int:
        return len(self.turns) // 2

    def plain(self) -> dict[str, Any]:
        """As JSON, of which `read` makes the same answer."""
        return {**vars(self), "turns": [message.model_dump(mode="json") for message in self.turns]}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Answer:
        return cls(**{**row, "turns": tuple(Message.model_validate(message) for message in row["turns"])})

    def segment(self, origin: tuple[str, int]) -> Segment:
        """A child of the prompt: trained on where the model spoke, with the column ``engine``."""
        own = np.asarray(self.own, np.float32)
        columns = {"engine": np.asarray(self.logp, np.float32)}
        return Segment(np.asarray(self.tokens, np.int32), own, 0, columns, origin=origin)

    def add(self, completion: Completion, tokenizer: Tokenizer) -> None:
        """The model's next turn."""
        self.tokens += completion.tokens
        self.own += [True] * len(completion.tokens)
        self.logp += completion.model_logp
        self.reason, self.text = completion.reason, tokenizer.decode(completion.tokens)

    def hear(self, said: Said, ids: Sequence[int]) -> None:
        """The tool's answer to the turn, and the header of the model's next."""
        self.tokens += ids
        self.own += [False] * len(ids)
        self.logp += [0.0] * len(ids)
        self.turns += (Message(role="assistant", content=self.text), Message(role="tool", content=said.text))
        self.failed_calls += said.failed


@dataclass(frozen=True)
class Rollout:
    """One group: a task, its prompt, and the answers that can be trained on (perhaps none) with their rewards."""

    task: Task
    prompt: list[int]
    answers: list[Answer]
    rewards: list[float]

    @property
    def spread(self) -> bool:
        return len(self.rewards) > 1 and max(self.rewards) > min(self.rewards)

    def example(self, **values: float) -> Example:
        """The prompt with these values, and each answer as its child."""
        prompt = prompt_segment(self.prompt, (self.task.id, 0), **values)
        return Example((prompt, *(answer.segment((self.task.id, len(self.prompt))) for answer in self.answers)))


@dataclass(frozen=True)
class Dialogues:
    """Generates the answers of requests that each belong to a task. With several ranks only the first has a ``tool``,
    and generates."""

    tokenizer: Tokenizer
    tool: Tool | None = None
    config: ToolConfig | None = None

    def answers(self, engine: Engine, requests: Sequence[Request], tasks: Sequence[Task]) -> list[list[Answer]]:
        """-> the n answers of each request, in order. A turn that calls the tool is answered and gone on from."""
        groups = [[Answer() for _ in range(request.n)] for request in requests]
        flat = [(place, sample, groups[place][sample]) for place, r in enumerate(requests) for sample in range(r.n)]
        completions = [one for group in engine.generate(requests) for one in group]
        while True:
            for (_, _, answer), completion in zip(flat, completions, strict=True):
                answer.add(completion, self.tokenizer)
            flat = self._ask([one for one in flat if self._calls(one[2])], requests, tasks)
            if not flat:
                return groups
            following = [_following(requests[place], sample, answer) for place, sample, answer in flat]
            completions = [group[0] for group in engine.generate(following)]

    def statistics(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Calls an answer, the share of them that failed, and the share of answers that asked once too often."""
        if self.config is None:
            return {}
        calls = sum(answer.calls for answer in answers)
        return {
            "tool_calls": calls / len(answers),
            "tool_failed": sum(answer.failed_calls for answer in answers) / max(1, calls),
            "tool_limit": float(np.mean([a.reason == "stop" and find_call(a.text) is not None for a in answers])),
        }

    def _calls(self, answer: Answer) -> bool:
        """The turn calls the tool and may."""
        if self.config is None or answer.reason == "length" or answer.tokens[-1] != self.tokenizer.im_end:
            return False
        return answer.calls < self.config.calls and find_call(answer.text) is not None

    def _ask(
        self, asking: Sequence[tuple[int, int, Answer]], requests: Sequence[Request], tasks: Sequence[Task]
    ) -> list[tuple[int, int, Answer]]:
        """Those that go on; one whose room does not hold what the tool says and a token more is cut there."""
        if not asking:
            return []
        assert self.tool is not None
        going = []
        said = self.tool([(tasks[place], find_call(answer.text) or "") for place, _, answer in asking])
        for (place, sample, answer), words in zip(asking, said, strict=True):
            short = self._shortened(words)
            ids = encode_continuation(self.tokenizer, [Message(role="tool", content=short.text)])
            if len(answer.tokens) + len(ids) < requests[place].sampling.max_new_tokens:
                answer.hear(short, ids)
                going.append((place, sample, answer))
            else:
                answer.reason = "length"
        return going

    def _shortened(self, said: Said) -> Said:
        assert self.config is not None
        ids = self.tokenizer.encode(said.text)
        if len(ids) <= self.config.tokens:
            return said
        return replace(said, text=self.tokenizer.decode(ids[: self.config.tokens]).rstrip("\ufffd"))


def _following(request: Request, sample: int, answer: Answer) -> Request:
    """The next turn of one sample: its own stream of random numbers, from a seed of the turn's own."""
    before: Sampling = request.sampling
    seed = int(np.random.SeedSequence([before.seed, answer.calls]).generate_state(1)[0])
    room = before.max_new_tokens - len(answer.tokens)
    sampling = before.model_copy(update={"seed": seed, "max_new_tokens": room})
    return Request([*request.prompt, *answer.tokens], 1, sampling, request.stop_ids, first=request.first + sample)
