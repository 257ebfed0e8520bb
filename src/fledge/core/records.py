"""The records that stages exchange, one JSON object a line.

Messages are written as OpenAI and Hugging Face write them: ``{"role": ..., "content": ...}``.
"""

from __future__ import annotations

import hashlib
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


class Message(Record):
    role: Role
    content: str
    weight: float | None = Field(default=None, description="0 leaves an assistant turn untrained (OpenAI's key)")

    def plain(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


class Conversation(Record):
    """A dialogue to imitate."""

    messages: tuple[Message, ...]
    meta: dict[str, Any] = Field(default_factory=dict)

    @field_validator("messages")
    @classmethod
    def _not_empty(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if not messages:
            raise ValueError("a conversation needs at least one message")
        return messages


class Preference(Record):
    """Two answers to one prompt, the first of them better."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
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
