"""Prompts of base models, and where their replies end."""

from __future__ import annotations

import pytest

from fledge.core.records import Message
from fledge.evaluate.prompts import plain_reply, plain_text


def test_plain_prompts() -> None:
    user = Message(role="user", content="Who?")
    assert plain_text([user], "en") == "Q: Who?\nA:"
    assert plain_text([Message(role="user", content="谁？")], "zh") == "问：谁？\n答："
    dialogue = [Message(role="system", content="Be kind."), user, Message(role="assistant", content="Me."), user]
    assert plain_text(dialogue, "en") == "Be kind.\nQ: Who?\nA: Me.\nQ: Who?\nA:"


@pytest.mark.parametrize(
    ("text", "reply", "ended"),
    [
        (" 5\nQ: What?", "5", True),
        (" 5\n\nThen", "5", True),
        ("5。\n问：什么", "5。", True),
        ("5\n答：6", "5", True),
        (" def f(x):\n    return x\n", "def f(x):\n    return x", False),
        ("\n\n 5", "5", False),
        (" Question: 5", "Question: 5", False),
        ("", "", False),
        ("a\nQuite so", "a\nQuite so", False),
        ("a\n  \nb", "a", True),
    ],
)
def test_plain_replies(text: str, reply: str, ended: bool) -> None:
    assert plain_reply(text) == (reply, ended)
