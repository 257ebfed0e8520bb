"""Tools in a dialogue, written as Qwen2.5's chat template writes them (the Hermes format).

The tools' signatures stand in the system message, a call is JSON between ``<tool_call>`` and ``</tool_call>`` in the
assistant's turn, and what tools return stands between ``<tool_response>`` and ``</tool_response>`` in a turn of the
user. So a dialogue with tools becomes one of plain ChatML messages, and the mask is decided on those.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fledge.core.records import Message, Role

_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A plain message, the index of the first message that it was made of (-1: none), and that one's role."""

    message: Message
    index: int
    role: Role


def turns(messages: Sequence[Message], default_system: str | None = None) -> list[Turn]:
    """Messages as they are, behind the default system message where they have none."""
    result = [Turn(message, index, message.role) for index, message in enumerate(messages)]
    if default_system is not None and messages[0].role != "system":
        result.insert(0, Turn(Message(role="system", content=default_system), -1, "system"))
    return result


def turns_with_tools(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], default_system: str | None = None
) -> list[Turn]:
    """Plain messages that say what these and the tools say."""
    given = turns(messages, default_system)
    if tools:
        signatures = _BEFORE + "".join(f"\n{_json(tool)}" for tool in tools) + _AFTER
        if given[0].role == "system":
            first = given.pop(0)
            content = f"{first.message.content}\n\n{signatures}"
            given.insert(0, Turn(first.message.model_copy(update={"content": content}), first.index, "system"))
        else:
            given.insert(0, Turn(Message(role="system", content=signatures), -1, "system"))
    result: list[Turn] = []
    for turn in given:
        message = turn.message
        if message.role == "tool":
            content = f"<tool_response>\n{message.content}\n</tool_response>"
            if result and result[-1].role == "tool":  # what several calls returned is one turn
                last = result.pop()
                content = f"{last.message.content}\n{content}"
                turn = last
            result.append(Turn(Message(role="user", content=content, weight=turn.message.weight), turn.index, "tool"))
        elif message.tool_calls:
            plain = message.model_copy(update={"content": message.text, "tool_calls": None})
            result.append(Turn(plain, turn.index, turn.role))
        else:
            result.append(turn)
    return result


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
