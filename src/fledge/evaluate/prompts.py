"""From a task to the ids that a model continues, and from what it wrote to the reply.

`chat` uses the model's chat format. `plain` is for base models: question and answer as running text, in the language of
the task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from fledge.core.records import Message
from fledge.tokenizer.chat import encode_prompt
from fledge.tokenizer.tokenizer import Tokenizer

Style = Literal["chat", "plain"]

_MARKS = {"zh": ("问：", "答："), "en": ("Q: ", "A: ")}
_NEXT = re.compile(r"\n[ \t]*\n|\n\s*(?:Q\s*[:：]|问\s*[:：]|A\s*[:：]|答\s*[:：])")


def plain_text(messages: Sequence[Message], language: str) -> str:
    """`Q: ...\\nA:` or `问：...\\n答：`; a system message stands above as it is. Ends where the answer begins."""
    question, answer = _MARKS["zh" if language.startswith("zh") else "en"]
    lines = []
    for message in messages:
        mark = {"system": "", "assistant": answer}.get(message.role, question)
        lines.append(mark + message.content)
    return "\n".join([*lines, answer.rstrip()])


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message], language: str, style: Style) -> list[int]:
    """Ids of the prompt. Base models see no control tokens."""
    if style == "chat":
        return list(encode_prompt(tokenizer, messages))
    return list(tokenizer.encode(plain_text(messages, language)))


def stop_ids(tokenizer: Tokenizer, style: Style) -> tuple[int, ...]:
    """Tokens that end a reply: end of turn and of text. Base models write text on and on: see `plain_reply`."""
    if style == "chat":
        return (tokenizer.im_end, tokenizer.endoftext)
    return (tokenizer.endoftext,)


def plain_reply(text: str) -> tuple[str, bool]:
    """The reply in what a base model wrote, and whether it has ended: at a blank line, or where the next question or
    answer begins."""
    text = text.lstrip()
    found = _NEXT.search(text)
    return (text[: found.start()] if found else text).strip(), found is not None
