"""Replies of a model to prompts, many at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fledge.core.records import Message
from fledge.evaluate.prompts import Style, plain_reply, prompt_ids, stop_ids
from fledge.generate.engine import Engine, Request
from fledge.generate.loaded import LoadedModel
from fledge.generate.sampling import Sampling

if TYPE_CHECKING:
    from fledge.evaluate.stage import Config

LEAST_ROOM = 16  # tokens of context that must be left for a reply
FIRST_SLICE = 32  # tokens after which the text of a base model is first looked at; then twice as many, and so on


@dataclass(frozen=True)
class Ask:
    """A prompt that fits: `key` names it, `room` is how many tokens the reply may have."""

    key: str
    ids: list[int]
    room: int


class Writer:
    """A model that answers under a configuration of the stage."""

    def __init__(self, config: Config, model: LoadedModel) -> None:
        self.config, self.tokenizer = config, model.tokenizer
        self.style: Style = config.prompt
        self.context = model.decoder.config.max_position_embeddings
        self.engine = Engine(model, max_rows=config.batch, compile=None)
        self.stops = stop_ids(model.tokenizer, config.prompt)

    def ask(self, key: str, messages: Sequence[Message], language: str) -> Ask | str:
        """The prompt, or why there is no room for it."""
        ids = prompt_ids(self.tokenizer, messages, language, self.style)
        room = self.context - len(ids)
        if room < min(LEAST_ROOM, self.config.max_new_tokens):
            return f"the prompt does not fit the context of {self.context} tokens"
        return Ask(key, ids, min(room, self.config.max_new_tokens))

    def answer(self, asks: Sequence[Ask], on_progress: Callable[[int], object] | None = None) -> list[dict[str, Any]]:
        """`{"id", "reply", "tokens", "finish"}` in the order of the asks; finish is stop or length.

        In plain style the model is stopped by its text, which the engine does not look at: so it generates a slice, and
        those whose answer has not ended go on with the next.
        """
        written: list[list[int]] = [[] for _ in asks]
        rows: list[dict[str, Any] | None] = [None] * len(asks)
        size = FIRST_SLICE if self.style == "plain" else self.config.max_new_tokens
        left = list(range(len(asks)))
        while left:
            requests = [self._request(asks[place], written[place], size) for place in left]
            report = on_progress if self.style == "chat" else None
            for place, (completion,) in zip(left, self.engine.generate(requests, report), strict=True):
                written[place] += completion.tokens
                stopped = completion.reason == "stop"
                rows[place] = self._row(asks[place], written[place], stopped)
            before = len(left)
            left = [place for place in left if rows[place] is None]
            if on_progress is not None and self.style == "plain":
                on_progress(before - len(left))
            size *= 2
        return [row for row in rows if row is not None]

    def _request(self, ask: Ask, written: list[int], size: int) -> Request:
        sampling = Sampling(
            temperature=self.config.temperature,
            max_new_tokens=min(size, ask.room - len(written)),
            seed=(self.config.seed << 32) + zlib.crc32(ask.key.encode()),
        )
        # `first` is the stream of random numbers: a later slice must not repeat those of the one before.
        return Request([*ask.ids, *written], 1, sampling, self.stops, first=len(written))

    def _row(self, ask: Ask, written: list[int], stopped: bool) -> dict[str, Any] | None:
        """The finished row, or None where the reply goes on."""
        text, ended = self.tokenizer.decode(written), False
        if self.style == "plain":
            text, ended = plain_reply(text)
        if not stopped and not ended and len(written) < ask.room:
            return None
        return {
            "id": ask.key,
            "reply": text,
            "tokens": len(written),
            "finish": "stop" if stopped or ended else "length",
        }
