"""Pairs in other people's shapes: no turn, system message or tool of a row is lost without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fledge.core.errors import DataError
from fledge.core.records import Conversation, Preference, Ranking
from fledge.core.row_shapes import to_api, to_record

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
        (  # HH-RLHF's transcripts
            {
                "chosen": "\n\nHuman: q1\n\nAssistant: x\n\nHuman: q2 \n\nAssistant: good",
                "rejected": "\n\nHuman: q1\n\nAssistant: x\n\nHuman: q2 \n\nAssistant: bad\n",
            },
            [Q1, X, Q2],
        ),
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
        ({"prompt": "q1", "tools": "{", "chosen": "good", "rejected": "bad"}, "'tools' is a text that is not JSON"),
        ({"prompt": "q1", "chosen": {"role": "assistant", "content": None}, "rejected": "bad"}, "no text content"),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        to_record(row, Preference)


ADD = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {
    "name": "add", "arguments": '{"a": 2}'}}]}  # fmt: skip
CALLED = '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q1", "tools": [ADD], "chosen": [CALLS], "rejected": "bad"},
        {"tools": [ADD], "chosen": [Q1, CALLS], "rejected": [Q1, BAD]},
        {
            "conversations": sharegpt(Q1), "tools": json.dumps([ADD]), "rejected": BAD,
            "chosen": {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
        },
        {"input": {"messages": [Q1], "tools": [ADD]}, "preferred_output": [CALLS], "non_preferred_output": [BAD]},
    ],
)  # fmt: skip
def test_tools_of_a_pair(row: dict[str, Any]) -> None:
    """Signatures are kept, and an answer with a call is what the model is to write; as a ranking and a dialogue too."""
    pair = to_record(row, Preference)
    assert (pair.tools, pair.chosen, pair.rejected) == ((ADD,), CALLED, "bad")
    ranking = to_record(row, Ranking)
    assert (ranking.tools, ranking.answers) == ((ADD,), (CALLED, "bad"))
    dialogue = to_record(row, Conversation)
    assert (dialogue.tools, dialogue.messages[-1].content) == ((ADD,), CALLED)
    assert to_record(to_api(pair), Preference) == pair


def test_calls_before_the_answer_are_kept() -> None:
    """In the prompt, there and back, and behind an answer's own words."""
    said = {"role": "tool", "tool_call_id": "1", "content": "5"}
    spoken = {**CALLS, "content": "wait"}
    pair = to_record({"prompt": [Q1, CALLS, said, Q2], "chosen": [spoken], "rejected": "bad"}, Preference)
    assert pair.chosen == f"wait\n{CALLED}"
    assert pair.prompt[1].text == CALLED
    assert to_record(to_api(pair), Preference) == pair


def test_ids_are_kept() -> None:
    for row in (
        {"id": 7, "prompt": "q1", "chosen": "good", "rejected": "bad", "meta": {"a": 1}},
        {"id": 7, "conversations": sharegpt(Q1), "chosen": GOOD, "rejected": BAD, "meta": {"a": 1}},
        {"id": 7, "chosen": [Q1, GOOD], "rejected": [Q1, BAD], "meta": {"a": 1}},
    ):
        assert to_record(row, Preference).meta == {"a": 1, "id": 7}
        assert to_record(row, Conversation).meta == {"a": 1, "id": 7}
    assert to_record({"id": 7, "conversations": sharegpt(Q1, GOOD)}, Conversation).meta == {"id": 7}


API = {
    "input": {"messages": [SYSTEM, Q1]}, "preferred_output": [GOOD], "non_preferred_output": [BAD],
}  # fmt: skip


def test_the_shape_of_apis_there_and_back() -> None:
    pair = to_record(API, Preference)
    assert to_api(pair) == API
    other = to_record({"prompt": "q1", "chosen": "good", "rejected": "bad"}, Preference)
    assert to_record(to_api(other), Preference) == other
    with pytest.raises(DataError, match="ends with a turn of system"):
        to_api(to_record({"prompt": [SYSTEM], "chosen": "good", "rejected": "bad"}, Preference))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": 3}, "unknown key 'id'"),
        ({"input": {"messages": [Q1], "top_k": 3}}, "unknown key 'top_k'"),
        ({"input": {"messages": [SYSTEM]}}, "must end with the user's turn, not one of 'system'"),
        ({"input": {"messages": [Q1, X]}}, "must end with the user's turn, not one of 'assistant'"),
        ({"input": {"messages": []}}, "'input' must hold a list of messages"),
        ({"input": [Q1]}, "'input' must be an object with 'messages'"),
        ({"preferred_output": []}, "'preferred_output' must be a list with exactly one message"),
        ({"preferred_output": [GOOD, GOOD]}, "'preferred_output' must be a list with exactly one message"),
        ({"preferred_output": "good"}, "'preferred_output' must be a list with exactly one message"),
        ({"non_preferred_output": [Q1]}, "end with the assistant's"),
        ({"non_preferred_output": [{**BAD, "refusal": ""}]}, "unknown key 'refusal'"),
        ({"non_preferred_output": [GOOD]}, "the same text"),
        ({"preferred_output": [{"role": "assistant", "content": " "}]}, "an answer is empty"),
    ],
)
def test_the_shape_of_apis_is_strict(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        to_record({**API, **changes}, Preference)


@pytest.mark.parametrize("key", list(API))
def test_no_key_of_the_shape_of_apis_may_be_missing(key: str) -> None:
    with pytest.raises(DataError, match=r"missing|must be|no preference here"):
        to_record({k: v for k, v in API.items() if k != key}, Preference)


def test_a_conversation_keeps_its_tools() -> None:
    plain = to_record({"conversations": sharegpt(Q1, GOOD), "tools": ""}, Conversation)
    assert (plain.messages[1].content, plain.tools) == ("good", None)
    for tools in ([{"name": "f"}], '[{"name": "f"}]'):
        assert to_record({"conversations": sharegpt(Q1, GOOD), "tools": tools}, Conversation).tools == ({"name": "f"},)
