"""Dialogues as ids: ChatML, built by ids with the mask decided by message (never by searching in rendered text).

Each message is ``<|im_start|>{role}\\n{content}<|im_end|>\\n``. The ids equal Hugging Face's
``apply_chat_template(tokenize=True)`` but for two cases, counted in ``EncodedChat.notes``: a control string inside a
content is plain text here, and an assistant's content is encoded apart from its header (so that what a model
generates after the header has the ids it was trained on), which shows where that content begins with white space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ValidationError

from fledge.core.errors import DataError
from fledge.core.records import Conversation, Message
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.tokenizer.tools import Turn, turns, turns_with_tools

Mask = Literal["response", "last", "qwen1", "all"]
MASKS: tuple[Mask, ...] = ("response", "last", "qwen1", "all")

# Keys of `EncodedChat.notes`.
CONTROL_IN_CONTENT = "messages whose content holds a control string (encoded as plain text)"
SPACE_FIRST = "assistant turns that begin with white space (encoded from after the header)"
EMPTY_ANSWER = "assistant turns that are empty"
TURNS_DROPPED = "oldest messages dropped to fit the context"
TOOL_TURN = "tool messages, which the folder's own chat template would write otherwise"
TOOLS_WRITTEN = "dialogues with tools, written as Qwen2.5 does; the folder's own chat template does not"

# Reasons of `fit`.
TOO_LONG = "longer than the context"
NOTHING_TRAINED = "no token is trained on"
HAS_EMPTY_ANSWER = "an answer is empty"

Messages = Conversation | Sequence[Message | Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class MessageSpan:
    """Where a message stands: tokens ``start:end``, its content ``content_start:content_end`` (without the end token).

    ``message`` is its index among the messages given, -1 for a system message that was put before them. What several
    tools returned may be one message as it is written: the index is that of the first.
    """

    role: str
    start: int
    end: int
    content_start: int
    content_end: int
    message: int


@dataclass(frozen=True, slots=True)
class EncodedChat:
    """``weights[i]`` belongs to ``ids[i]`` as the token that is predicted; the first token has none before it: 0."""

    ids: list[int]
    weights: list[float]
    spans: tuple[MessageSpan, ...]
    notes: dict[str, int]

    @property
    def trained(self) -> int:
        """How many tokens are trained on."""
        return sum(weight != 0 for weight in self.weights)


def encode_chat(
    tokenizer: Tokenizer, messages: Messages, mask: Mask = "response", final_newline: bool = True
) -> EncodedChat:
    """Encode a whole dialogue for training.

    Masks (a message of weight 0 is left out of each; another weight multiplies):

    - ``response``: contents of assistant turns and their ``<|im_end|>``
    - ``last``: the same, of the last assistant turn only
    - ``qwen1``: as Qwen's first ``finetune.py``: also the line break after an answer and each ``<|im_start|>``; of
      other turns ``<|im_start|>``, ``<|im_end|>`` and the line break
    - ``all``: every token

    ``final_newline=False`` leaves out the line break after the last message: then the ids are those of
    `encode_prompt` followed by `encode_reply`. Raises `DataError` for a role or content that is none.
    """
    if mask not in MASKS:
        raise DataError(f"mask {mask!r} is unknown; choose one of {', '.join(MASKS)}")
    parsed = parse_messages(messages)
    builder = _Builder(tokenizer, mask)
    tools = messages.tools if isinstance(messages, Conversation) else None
    written = builder.turns(parsed, tokenizer.default_system, tools or ())
    last_answer = max((turn.index for turn in written if turn.role == "assistant"), default=-1)
    for turn in written:
        builder.add(turn, trained=mask != "last" or turn.index == last_answer)
    return builder.finish(final_newline)


def encode_for_training(tokenizer: Tokenizer, messages: Messages, mask: Mask) -> EncodedChat:
    """As SFT trains on it: with the line break after the last message only where the mask counts it."""
    return encode_chat(tokenizer, messages, mask, final_newline=mask in ("all", "qwen1"))


def encode_prompt(tokenizer: Tokenizer, messages: Messages, notes: Counter[str] | None = None) -> list[int]:
    """Ids of a dialogue that the assistant is to continue, its header at the end. Notes are added to ``notes``."""
    parsed = parse_messages(messages)
    if parsed[-1].role == "assistant":
        raise DataError("the last message is the assistant's own: a prompt must end with one that it answers")
    builder = _Builder(tokenizer, "response")
    tools = messages.tools if isinstance(messages, Conversation) else None
    for turn in builder.turns(parsed, tokenizer.default_system, tools or ()):
        builder.add(turn)
    if notes is not None:
        notes.update(+builder.notes)
    return builder.ids + header(tokenizer, "assistant")


def encode_reply(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of an answer as the model is to generate it: content and ``<|im_end|>``."""
    return [*tokenizer.encode(text), tokenizer.im_end]


def encode_continuation(tokenizer: Tokenizer, messages: Messages) -> list[int]:
    """What follows a reply's ``<|im_end|>`` when the dialogue goes on by ids: line break, messages, header."""
    parsed = parse_messages(messages)
    builder = _Builder(tokenizer, "response")
    for turn in builder.turns(parsed, None):
        builder.add(turn)
    return builder.newline + builder.ids + header(tokenizer, "assistant")


def header(tokenizer: Tokenizer, role: str) -> list[int]:
    """``<|im_start|>``, the role and a line break."""
    return [tokenizer.im_start, *tokenizer.encode_short(f"{role}\n")]


def fit(encoded: EncodedChat, max_tokens: int | None) -> tuple[EncodedChat | None, str]:
    """The example as it can be trained on within ``max_tokens``, or (None, why not).

    Whole oldest turns are dropped, so that what is left begins with the system message and a user's turn; nothing is
    ever cut within a message, so every answer keeps its end token. Examples without a trained token, or with an empty
    answer, are refused.
    """
    if encoded.trained == 0:
        return None, NOTHING_TRAINED
    if encoded.notes.get(EMPTY_ANSWER):
        return None, HAS_EMPTY_ANSWER
    if max_tokens is None or len(encoded.ids) <= max_tokens:
        return encoded, ""
    spans = encoded.spans
    kept = 1 if spans[0].role == "system" else 0
    for first in range(kept + 1, len(spans)):
        if spans[first].role != "user":
            continue
        shorter = _without(encoded, kept, first)
        if len(shorter.ids) <= max_tokens:
            return (shorter, "") if shorter.trained else (None, TOO_LONG)
    return None, TOO_LONG


def parse_messages(messages: Messages) -> tuple[Message, ...]:
    """Messages as records; a dict with a wrong role or without a content is refused."""
    result = []
    for index, message in enumerate(messages.messages if isinstance(messages, Conversation) else messages):
        if not isinstance(message, Message):
            try:
                message = Message.model_validate(message)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise DataError(f"message {index}: {where}: {first['msg']} (got {first['input']!r:.80})") from None
        if message.weight is not None and message.weight < 0:
            raise DataError(f"message {index}: weight {message.weight} is negative")
        result.append(message)
    if not result:
        raise DataError("there are no messages")
    return tuple(result)


class _Builder:
    """Appends messages with their weights."""

    def __init__(self, tokenizer: Tokenizer, mask: Mask) -> None:
        if not tokenizer.has_chat:
            raise DataError(
                f"{tokenizer.origin}: this tokenizer has no <|im_start|> and <|im_end|>, so dialogues cannot be "
                "encoded; use a ChatML tokenizer (Qwen2's, or one made by `fledge tokenizer`)"
            )
        self.tokenizer, self.mask = tokenizer, mask
        self.newline = tokenizer.encode_short("\n")
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.spans: list[MessageSpan] = []
        self.notes: Counter[str] = Counter()
        if tokenizer.template.differs:
            self.notes[tokenizer.template.differs] += 1

    def turns(
        self, messages: Sequence[Message], default_system: str | None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[Turn]:
        """The messages that are written: plain ones, with what is said of tools put into words where the folder's
        template does so, or where there is no other way."""
        hermes = self.tokenizer.template.hermes
        if hermes or tools or any(message.tool_calls for message in messages):
            self.notes[TOOLS_WRITTEN] += not hermes
            return turns_with_tools(messages, tools, default_system)
        return turns(messages, default_system)

    def add(self, turn: Turn, trained: bool = True) -> None:
        tokenizer, message = self.tokenizer, turn.message
        answer = message.role == "assistant"
        self._note(message)
        if answer:  # apart from its header: what a model generates follows the header's own tokens
            opening = header(tokenizer, message.role)
            content = tokenizer.encode(message.content)
        else:  # in one piece, as the rendered text would be
            whole = tokenizer.encode(f"{message.role}\n{message.content}")
            head = len(tokenizer.encode_short(f"{message.role}\n"))
            opening, content = [tokenizer.im_start, *whole[:head]], whole[head:]
        start = len(self.ids)
        closing = [tokenizer.im_end, *self.newline]
        self.ids += opening + content + closing
        scale = 1.0 if message.weight is None else message.weight
        shape = (len(opening), len(content), len(self.newline))
        self.weights += [scale * weight if trained else 0.0 for weight in _pattern(self.mask, answer, *shape)]
        place = start + len(opening)
        end = len(self.ids)
        self.spans.append(MessageSpan(turn.role, start, end, place, place + len(content), turn.index))

    def finish(self, final_newline: bool) -> EncodedChat:
        if not final_newline:
            cut = len(self.ids) - len(self.newline)
            del self.ids[cut:], self.weights[cut:]
            self.spans[-1] = replace(self.spans[-1], end=cut)
        if self.weights:
            self.weights[0] = 0.0  # nothing stands before it that could predict it
        return EncodedChat(self.ids, self.weights, tuple(self.spans), dict(+self.notes))

    def _note(self, message: Message) -> None:
        if self.tokenizer.has_control_string(message.content):
            self.notes[CONTROL_IN_CONTENT] += 1
        if message.role == "tool" and self.tokenizer.template.tool_differs:
            self.notes[TOOL_TURN] += 1
        if message.role == "assistant":
            if message.content[:1].isspace():
                self.notes[SPACE_FIRST] += 1
            if not message.content.strip() and message.weight != 0:
                self.notes[EMPTY_ANSWER] += 1


def _pattern(mask: Mask, answer: bool, opening: int, content: int, newline: int) -> Iterable[float]:
    """Weights of one message's tokens: opening (``<|im_start|>``, role, line break), content, end token, line break."""
    if mask == "all":
        return [1.0] * (opening + content + 1 + newline)
    if mask == "qwen1":
        return [1.0] + [0.0] * (opening - 1) + [float(answer)] * content + [1.0] * (1 + newline)
    return [0.0] * opening + [float(answer)] * (content + 1) + [0.0] * newline


def _without(encoded: EncodedChat, kept: int, first: int) -> EncodedChat:
    """The messages before ``kept`` and from ``first`` on."""
    head = encoded.spans[kept - 1].end if kept else 0
    start = encoded.spans[first].start
    shift = start - head
    moved = tuple(
        replace(
            span, start=span.start - shift, end=span.end - shift,
            content_start=span.content_start - shift, content_end=span.content_end - shift,
        )
        for span in encoded.spans[first:]
    )  # fmt: skip
    weights = encoded.weights[:head] + encoded.weights[start:]
    weights[0] = 0.0
    notes = {**encoded.notes, TURNS_DROPPED: first - kept}
    return EncodedChat(encoded.ids[:head] + encoded.ids[start:], weights, encoded.spans[:kept] + moved, notes)
