"""Other people's shapes as records: questions with numbers, instructions, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fledge.core.errors import DataError
from fledge.core.readers import read_records
from fledge.core.records import Conversation, Preference, Record, Task
from fledge.core.row_shapes import to_record
from fledge.reward import verifiers


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("2 + 3 = <<2+3=5>>5\n#### 5", "5"), ("so\n#### 1,200", "1200"), ("#### -3", "-3"), ("9", "9"), ("12%", "12%"),
        ("2/6", "2/6"), (145.0, "145"), (1.5, "1.5"), (7, "7"),
    ],
)  # fmt: skip
def test_question_and_answer_make_a_task(answer: Any, value: str) -> None:
    task = to_record({"question": "how many?", "answer": answer}, Task)
    assert (task.verifier, task.answer) == ("gsm8k", {"value": value})
    assert [message.plain() for message in task.messages] == [{"role": "user", "content": "how many?"}]
    verifiers.validate(task)
    assert verifiers.score(task, f"it is\n#### {value}").value == 1
    assert verifiers.score(task, "#### 31337").value == 0


def test_id_follows_from_the_question() -> None:
    one, again, other = (to_record({"question": text, "answer": 1}, Task) for text in ("a?", "a?", "b?"))
    assert one.id == again.id != other.id
    assert to_record({"question": "a?", "answer": 1, "id": 7}, Task).id == "7"


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (Task, {"question": "a?", "answer": "blue"}, "neither ends in '#### NUMBER' nor is a number: 'blue'"),
        (Task, {"question": "a?", "answer": "5\n####"}, "neither ends"),
        (Task, {"question": "a?", "answer": True}, "must be a text or a number, found bool"),
        (Task, {"question": " ", "answer": 1}, "the question is empty"),
        (Task, {"question": "a?", "answer": 1, "grade": 2}, "unknown key 'grade'"),
        (Task, {"Body": "a", "Answer": 1}, r"no task here: .*found \['Answer', 'Body'\]"),
        (Task, ["a?", 1], "expected an object, found list"),
        (Conversation, {"instruction": "a", "output": ""}, "the answer is empty"),
        (Conversation, {"instruction": "a", "instances": []}, "unknown key 'instances'"),
        (Conversation, {"instruction": ["a"], "output": "b"}, "'instruction' and 'input' must be texts"),
        (Conversation, {"instruction": "a", "output": "b", "response": "c"}, "which is the answer"),
        (Conversation, {"prompt": "a", "response": "b", "label": 1}, "unknown key 'label'"),
    ],
)
def test_refused_with_the_reason(kind: type[Record], row: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        to_record(row, kind)


def test_bad_rows_are_named_and_cost_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl.gz"
    rows = ['{"question": "a?", "answer": "#### 1"}', "{", '{"question": "b?", "answer": "many"}',
            '{"question": "c?", "answer": "3"}']  # fmt: skip
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(rows))
    skipped: list[str] = []
    tasks = list(read_records(path, Task, "skip", skipped))
    assert [task.answer["value"] for task in tasks] == ["1", "3"]
    assert [text.partition(": ")[0] for text in skipped] == [f"{path}:2", f"{path}:3"]
    with pytest.raises(DataError, match=r"train\.jsonl\.gz:2: not valid JSON"):
        list(read_records(path, Task))


def test_packed_array_of_instructions(tmp_path: Path) -> None:
    path = tmp_path / "rows.json.gz"
    rows = [{"instruction": "sum", "input": "1 2", "response": "3", "id": "x"}]
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    (record,) = read_records(path, Conversation)
    assert [message.content for message in record.messages] == ["sum\n1 2", "3"]
    assert record.meta == {"id": "x"}


def test_coig_keeps_what_it_says_of_a_row() -> None:
    """COIG-PC and COIG-CQIA: instruction, input and output, and beside them what a sampler may ask for."""
    cqia = {
        "instruction": "这句话用了什么修辞？", "input": "月亮像一只小船。", "output": "比喻。",
        "task_type": {"major": ["问答"], "minor": ["修辞"]}, "domain": ["语文"], "metadata": None,
        "answer_from": "human", "human_verified": True, "copyright": "示例",
    }  # fmt: skip
    record = to_record(cqia, Conversation)
    assert [m.content for m in record.messages] == ["这句话用了什么修辞？\n月亮像一只小船。", "比喻。"]
    assert record.meta["task_type"]["minor"] == ["修辞"]
    assert record.meta["human_verified"] is True
    pc = {
        "instruction": "把句子翻译成英文", "input": "你好", "output": "Hello", "split": "train", "index": 7,
        "task_name_in_eng": "translation", "task_type": {"major": ["翻译"], "minor": ["中译英"]}, "domain": ["通用"],
        "other": None,
    }  # fmt: skip
    assert to_record(pc, Conversation).meta["task_name_in_eng"] == "translation"
    with pytest.raises(DataError, match="the answer is empty"):
        to_record({**pc, "output": ""}, Conversation)


def test_olcc_pairs_and_questions_without_an_answer() -> None:
    """OL-CC as its mirror has it: dialogues of one turn; a second file holds questions that nobody has answered."""
    pair = [{"from": "human", "value": "推荐一本书"}, {"from": "gpt", "value": "《边城》。"}]
    record = to_record({"conversations": pair, "id": 3}, Conversation)
    assert [(m.role, m.content) for m in record.messages] == [("user", "推荐一本书"), ("assistant", "《边城》。")]
    assert len(to_record({"conversations": pair[:1]}, Conversation).messages) == 1  # left out where it is encoded


def test_openhermes_preferences() -> None:
    """A prompt as text, both sides as whole dialogues, and the candidates that they were taken from."""
    question = {"role": "user", "content": "1+1?"}
    row = {
        "prompt": "1+1?", "source": "made up", "category": None, "candidates_completions": ["2", "3", "4"],
        "candidate_policies": ["a", "b", "c"], "ranks": [1, 2, 3], "rank_str": "1>2>3",
        "chosen": [question, {"role": "assistant", "content": "2"}], "chosen_policy": "a",
        "rejected": [question, {"role": "assistant", "content": "4"}], "rejected_policy": "c",
    }  # fmt: skip
    pair = to_record(row, Preference)
    assert ([m.content for m in pair.prompt], pair.chosen, pair.rejected) == (["1+1?"], "2", "4")
    assert pair.meta["rejected_policy"] == "c"
    assert "candidates_completions" not in pair.meta
    assert [m.content for m in to_record(row, Conversation).messages] == ["1+1?", "2"]


def test_tools_in_either_spelling() -> None:
    call = {"name": "add", "arguments": {"x": 1}}
    openai = {
        "tools": [{"type": "function", "function": {"name": "add"}}],
        "messages": [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
            ]},
            {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "2"},
        ],
    }  # fmt: skip
    sharegpt = {
        "tools": json.dumps(openai["tools"]),
        "conversations": [
            {"from": "human", "value": "1+1?"}, {"from": "function_call", "value": json.dumps(call)},
            {"from": "observation", "value": "2"},
        ],
    }  # fmt: skip
    one, other = (to_record(row, Conversation) for row in (openai, sharegpt))
    assert one.messages == other.messages
    assert one.tools == other.tools
    assert one.messages[1].tool_calls is not None
    assert one.messages[1].tool_calls[0].arguments == {"x": 1}
    written = one.model_dump(mode="json", exclude_none=True)
    assert to_record(written, Conversation) == one, "as it is written, it is read"


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"from": "function_call", "value": "add 1"}, "a function call that is not JSON"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "x"}]}, "the arguments are not JSON"),
        ({"role": "user", "content": "a", "tool_calls": [{"name": "f", "arguments": {}}]}, "only the assistant calls"),
    ],
)
def test_bad_calls_are_refused(turn: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        to_record({"messages": [{"role": "user", "content": "q"}, turn]}, Conversation)
