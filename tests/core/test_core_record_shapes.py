"""Other people's shapes as records: questions with numbers, instructions, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fledge.core.errors import DataError
from fledge.core.readers import read_records, to_record
from fledge.core.records import Conversation, Record, Task
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
