"""The records that stages exchange, one JSON object a line.

Messages are written as OpenAI and Hugging Face write them: ``{"role": ..., "content": ...}``.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Role = Literal["system", "user", "assistant", "tool"]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Record):
    """A text with where it came from. ``id`` follows from content and source, so it is the same in every run."""

    text: str
    source: str = Field(description="URL or file, with record offset where it has one")
    language: str | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def id(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.source.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
        digest.update(self.text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


class ToolCall(Record):
    """A call of a tool by the assistant; also read as OpenAI writes it, with ``function`` and arguments as a text."""

    name: str
    arguments: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = given["function"] if isinstance(given.get("function"), dict) else given
        arguments = given.get("arguments")
        if isinstance(arguments, str):
            try:
                given = {**given, "arguments": json.loads(arguments or "{}")}
            except ValueError:
                raise ValueError(f"the arguments are not JSON: {arguments!r:.80}") from None
        return given


    @property
    def text(self) -> str:
        """As Qwen2.5's chat template writes it."""
        # not a dictionary's JSON: the name stands there as it is, whatever characters it holds
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return f'<tool_call>\n{{"name": "{self.name}", "arguments": {arguments}}}\n</tool_call>'


class Message(Record):
    """``tool_calls`` of an assistant's message stand behind its content, which may then be empty or null."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] | None = None
    weight: float | None = Field(default=None, description="0 leaves an assistant turn untrained (OpenAI's key)")

    @model_validator(mode="before")
    @classmethod
    def _calls(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("tool_calls") and given.get("content") is None:
            return {**given, "content": ""}
        return given

    @model_validator(mode="after")
    def _assistant_calls(self) -> Message:
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls in a message of {self.role}: only the assistant calls tools")
        return self

    @property
    def text(self) -> str:
        """The content and, behind it, the calls."""
        return "\n".join([*([self.content] if self.content else []), *(call.text for call in self.tool_calls or ())])

    def plain(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


class Conversation(Record):
    """A dialogue to imitate. ``tools``: signatures of functions that the assistant may call, as JSON schema."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @field_validator("messages")
    @classmethod
    def _not_empty(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if not messages:
            raise ValueError("a conversation needs at least one message")
        return messages


class Preference(Record):
    """Two answers to one prompt, the first of them better. ``tools``: as in a `Conversation`; an answer that calls one
    holds the call as it is written."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    tools: tuple[dict[str, Any], ...] | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usable(self) -> Preference:
        if not self.prompt or self.prompt[-1].role == "assistant":
            raise ValueError("the prompt must end with a message that an assistant answers")
        if not self.chosen.strip() or not self.rejected.strip():
            raise ValueError("an answer is empty")
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected are the same text: the pair teaches nothing")
        return self

    @property
    def asked(self) -> Conversation:
        return Conversation(messages=self.prompt, tools=self.tools)


class Ranking(Record):
    """Any number of answers to one prompt, best first. Where there are ``scores`` (falling), equal ones are ties."""

    prompt: tuple[Message, ...]
    answers: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usable(self) -> Ranking:
        if not self.prompt or self.prompt[-1].role == "assistant":
            raise ValueError("the prompt must end with a message that an assistant answers")
        if len(self.answers) < 2:
            raise ValueError("a ranking needs at least two answers")
        if not all(answer.strip() for answer in self.answers):
            raise ValueError("an answer is empty")
        if len(set(self.answers)) < len(self.answers):
            raise ValueError("two answers are the same text: which of their places is it?")
        if self.scores is not None:
            if len(self.scores) != len(self.answers):
                raise ValueError(f"{len(self.scores)} scores for {len(self.answers)} answers")
            if not all(map(math.isfinite, self.scores)) or list(self.scores) != sorted(self.scores, reverse=True):
                raise ValueError(f"scores must be finite and fall from the best answer on, are {list(self.scores)}")
            if self.scores[0] == self.scores[-1]:
                raise ValueError("all answers have one score: the ranking teaches nothing")
        return self

    @property
    def asked(self) -> Conversation:
        return Conversation(messages=self.prompt, tools=self.tools)


class Task(Record):
    """A prompt whose answer a verifier can score, without a reference answer being shown to the model.

    ``verifier`` names a function of `fledge.reward.verifiers`; ``answer`` is what that function needs.
    """

    id: str
    messages: tuple[Message, ...]
    verifier: str
    answer: dict[str, Any]
    skill: str = ""
    language: str = ""
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usable(self) -> Task:
        if not self.messages or self.messages[-1].role == "assistant":
            raise ValueError("a task's messages must end with one that an assistant answers")
        return self
