"""Pairs in other people's shapes: no turn, system message or tool of a row is lost without a word."""

from __future__ import annotations

from typing import Any

import pytest

from fledge.core.errors import DataError
from fledge.core.readers import to_record
from fledge.core.records import Conversation, Preference

SYSTEM = {"role": "system", "content": "be brief"}
Q1, Q2 = {"role": "user", "content": "q1"}, {"role": "user", "content": "q2"}
X, Y = {"role": "assistant", "content": "x"}, {"role": "assistant", "content": "y"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}


def sharegpt(*messages: dict[str, str]) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[m["role"]], "value": m["content"]} for m in messages]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "q1", "chosen": [Q1, X, Q2, GOOD], "rejected": [Q1, X, Q2, BAD]}, [Q1, X, Q2]),
        ({"prompt": [Q1, X, Q2], "chosen": [Q1, X, Q2, GOOD], "rejected": [BAD]}, [Q1, X, Q2]),
        ({"prompt": "q1", "chosen": [Q1, GOOD], "rejected": "bad"}, [Q1]),
        ({"prompt": "q1", "chosen": GOOD, "rejected": BAD}, [Q1]),
        ({"prompt": "q1", "system": "be brief", "chosen": "good", "rejected": "bad"}, [SYSTEM, Q1]),
        ({"prompt": "q1", "system": "be brief", "chosen": [SYSTEM, Q1, GOOD], "rejected": [Q1, BAD]}, [SYSTEM, Q1]),
        ({"system": "be brief", "chosen": [Q1, GOOD], "rejected": [Q1, BAD]}, [SYSTEM, Q1]),
        (
            {
                "conversations": sharegpt(Q1), "system": "be brief", "tools": "[]",
                "chosen": sharegpt(Q1, X, Q2, GOOD), "rejected": sharegpt(Q1, X, Q2, BAD),
            },
            [SYSTEM, Q1, X, Q2],
        ),
        (
            {
                "input": {"messages": [Q1], "tools": [], "parallel_tool_calls": True},
                "preferred_output": [GOOD], "non_preferred_output": [BAD],
            },
            [Q1],
        ),
    ],
)  # fmt: skip
def test_every_turn_before_the_answer_is_in_the_prompt(row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    record = to_record(row, Preference)
    assert [message.plain() for message in record.prompt] == prompt
    assert (record.chosen, record.rejected) == ("good", "bad")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "q2", "chosen": [Q1, GOOD], "rejected": [Q1, BAD]}, "'chosen' has turns before the answer"),
        ({"prompt": "q1", "chosen": "good", "rejected": [Q2, BAD]}, "'rejected' has turns before the answer"),
        ({"prompt": "q1", "chosen": [Q1, X, Q2, GOOD], "rejected": [Q1, Y, Q2, BAD]}, "do not share a prompt"),
        ({"prompt": "q1", "chosen": [Q1, X, Q2, GOOD], "rejected": "bad"}, "do not share a prompt"),
        (
            {"conversations": sharegpt(Q1), "chosen": sharegpt(Q2, GOOD), "rejected": sharegpt(Q2, BAD)},
            "has turns before the answer",
        ),
        (
            {
                "input": {"messages": [Q1], "tools": [{"type": "function"}]},
                "preferred_output": [GOOD], "non_preferred_output": [BAD],
            },
            "'tools' are not supported",
        ),
        (
            {"conversations": sharegpt(Q1), "tools": '[{"name": "f"}]', "chosen": GOOD, "rejected": BAD},
            "'tools' are not supported",
        ),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        to_record(row, Preference)


def test_ids_are_kept() -> None:
    for row in (
        {"id": 7, "prompt": "q1", "chosen": "good", "rejected": "bad", "meta": {"a": 1}},
        {"id": 7, "conversations": sharegpt(Q1), "chosen": GOOD, "rejected": BAD, "meta": {"a": 1}},
        {"id": 7, "chosen": [Q1, GOOD], "rejected": [Q1, BAD], "meta": {"a": 1}},
    ):
        assert to_record(row, Preference).meta == {"a": 1, "id": 7}
        assert to_record(row, Conversation).meta == {"a": 1, "id": 7}
    assert to_record({"id": 7, "conversations": sharegpt(Q1, GOOD)}, Conversation).meta == {"id": 7}


def test_a_conversation_with_tools_is_refused() -> None:
    assert to_record({"conversations": sharegpt(Q1, GOOD), "tools": ""}, Conversation).messages[1].content == "good"
    with pytest.raises(DataError, match="'tools' are not supported"):
        to_record({"conversations": sharegpt(Q1, GOOD), "tools": [{"name": "f"}]}, Conversation)
