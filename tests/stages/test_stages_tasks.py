"""What GRPO, SFT and DPO read: bad records are refused with their place or counted with it, before training begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stages_small import Small

from fledge.core.errors import ConfigError, DataError, FledgeError
from fledge.core.readers import OnError
from fledge.core.records import Task
from fledge.reward import sandbox
from fledge.stages.dialogues import Account, read_conversations, read_preferences
from fledge.stages.rollouts import read_tasks
from fledge.tokenizer.tokenizer import Tokenizer


def row(id_: str, verifier: str = "number", answer: dict[str, Any] | None = None, **message: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{id_}?", **message}]
    return {"id": id_, "messages": messages, "verifier": verifier, "answer": answer or {"value": 12}}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer(small: Small) -> Tokenizer:
    return Tokenizer.load(small.root / "tokenizer")


BAD: dict[str, tuple[dict[str, Any], type[FledgeError], str]] = {
    "an unknown verifier": (row("x", "numbr"), ConfigError, "unknown verifier 'numbr'"),
    "a number as a text": (row("x", answer={"value": "12"}), DataError, "value must be a finite number, not '12'"),
    "a key too many": (row("x", answer={"value": 1, "near": 2}), DataError, "has unknown near"),
    "no texts": (row("x", "exact", {"texts": []}), DataError, "texts is empty"),
    "an empty text after a missing one": (
        row("x", "contains", {"all": ["a"], "none": [" "]}), DataError, "none holds an empty text",
    ),
    "markers of a wrong kind": (
        row("x", "refusal", {"refuse": True, "markers": "no"}), DataError, "markers must be a list of texts",
    ),
    "no value": (row("x", "gsm8k", {"value": None}), DataError, "value must be a text or a number, not None"),
    "an entry that is no name": (
        row("x", "python_tests", {"entry": "f(", "tests": "assert 1"}), DataError, "entry must be a Python name",
    ),
    "a module that is not there": (row("x", "no.such.module:f"), ConfigError, "cannot be loaded"),
    "a weight below 0": (row("x", weight=-1), DataError, "message 0: weight -1.0 is negative"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_tasks_are_checked_when_they_are_read(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    bad, kind, words = BAD[name]
    path = write(tmp_path / "tasks.jsonl", [row("a"), "\n", bad, row("b")])

    def read(on_error: OnError, account: Account) -> list[str]:
        return [task.id for task in read_tasks([path], tokenizer, 64, on_error, account)]

    with pytest.raises(kind, match=r"(?s)tasks\.jsonl:3: .*on_error=skip") as caught:
        read("fail", Account())
    assert words in str(caught.value)
    account = Account()
    assert read("skip", account) == ["a", "b"]
    assert (account.read, account.used, account.reasons) == (3, 2, {"malformed": 1})
    (skipped,) = account.rows
    assert skipped["place"] == f"{path}:3"
    assert words in skipped["reason"]


def test_every_row_of_tasks_is_counted_with_its_line(tokenizer: Tokenizer, tmp_path: Path) -> None:
    long = row("long", content="word " * 99)
    rows = ["not json\n", "\n", row("a"), {"id": "b"}, long, row("c")]
    path, account = write(tmp_path / "tasks.jsonl", rows), Account()
    assert [task.id for task in read_tasks([path], tokenizer, 64, "skip", account)] == ["a", "c"]
    assert (account.read, account.used) == (5, 2)
    assert account.reasons == {"malformed": 2, "the prompt fills the context": 1}
    places = {entry["place"].removeprefix(f"{path}:"): entry["reason"] for entry in account.rows}
    assert places.keys() == {"1", "4", "5"}
    assert "not valid JSON" in places["1"]
    assert "no task here" in places["4"]
    with pytest.raises(DataError, match=r"(?s)no usable task; left out: \{'malformed': 1\}; first: .*:1: not valid"):
        read_tasks([write(tmp_path / "none.jsonl", ["not json\n"])], tokenizer, 64, "skip", Account())


def test_tasks_of_code_are_left_out_where_it_cannot_be_confined(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on without them, and says how many and why. The search for a protection is made once."""
    asked = []

    def unavailable() -> sandbox.Protection:
        asked.append(1)
        raise sandbox.SandboxUnavailable("no namespaces, no Landlock")

    monkeypatch.setattr(sandbox, "protection", unavailable)
    code = [row(f"code-{i}", "python_tests", {"entry": "f", "tests": "assert f(1) == 2"}) for i in range(3)]
    easy = [json.loads(line) for line in (small.root / "sums.jsonl").read_text(encoding="utf-8").splitlines()]
    path = write(tmp_path / "tasks.jsonl", [code[0], *easy, *code[1:]])
    metrics = small.run("grpo", tmp_path / "out", tasks=[str(path)], steps=2, beta=0.0, replay=None)["metrics"]
    assert (metrics["rows_read"], metrics["rows_used"]) == (len(easy) + 3, len(easy))
    assert metrics["rows_skipped"] == {"no namespaces, no Landlock": 3}
    lines = (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"place": f"{path}:1", "reason": "no namespaces, no Landlock"}
    assert len(asked) == 1
    with pytest.raises(DataError, match=r"no usable task; left out: .*no Landlock"):
        read_tasks([write(tmp_path / "code.jsonl", code)], Tokenizer.load(tmp_path / "out"), 64, "fail", Account())


def test_a_run_goes_on_with_the_tasks_that_it_began_with(small: Small, tmp_path: Path) -> None:
    from fledge.core.config import build
    from fledge.stages import grpo

    config, words = build(grpo.Config, small.config("grpo")), Tokenizer.load(small.root / "pretrain")
    tasks = read_tasks(config.tasks, words, 64, "fail", Account())

    def source(tasks: list[Task]) -> grpo.Groups:
        return grpo.Groups(grpo.make_sampler(config, tasks, words, 64), config, None, None)

    state = json.loads(json.dumps(source(tasks).state()))
    source(tasks).load_state(state)
    with pytest.raises(DataError, match="begun with 12 usable tasks and now has 11"):
        source(tasks[1:]).load_state(state)


def talk(question: str, **answer: Any) -> dict[str, Any]:
    turn = {"role": "assistant", "content": "2", **answer}
    return {"messages": [{"role": "user", "content": question}, turn]}


def test_dialogues_that_cannot_be_encoded_have_a_place(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = ["\n", talk("a"), "no\n", talk("b", weight=-1), talk("c", content=" "), talk("d")]
    path = write(tmp_path / "talk.jsonl", rows)
    with pytest.raises(DataError, match=r"(?s)talk\.jsonl:4: message 1: weight -1.0 is negative.*on_error=skip"):
        read_conversations([write(path, ["\n", *rows[1:2], "\n", *rows[3:]])], tokenizer, "all", 64, "fail", Account())
    account = Account()
    read = read_conversations([write(path, rows)], tokenizer, "response", 64, "skip", account)
    assert [example.segments[0].origin for example in read] == [(f"{path}:2", 0), (f"{path}:6", 0)]
    assert (account.read, account.used) == (5, 2)
    assert sorted(entry["place"] for entry in account.rows) == [f"{path}:{line}" for line in (3, 4, 5)]
    assert account.reasons["malformed"] == 2


def test_pairs_that_cannot_be_encoded_have_a_place(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def pair(question: str, chosen: str = "yes", **message: Any) -> dict[str, Any]:
        prompt = [{"role": "user", "content": question, **message}]
        return {"prompt": prompt, "chosen": chosen, "rejected": "no"}

    path = write(tmp_path / "pairs.jsonl", ["\n", pair("a", weight=-1), pair("b", "y " * 99), pair("c")])
    with pytest.raises(DataError, match=r"pairs\.jsonl:2: message 0: weight -1.0 is negative"):
        read_preferences([path], tokenizer, 64, "fail", Account())
    account = Account()
    (example,) = read_preferences([path], tokenizer, 64, "skip", account)
    assert {segment.origin[0] for segment in example.segments} == {f"{path}:4"}
    assert (account.read, account.used) == (3, 1)
    assert {entry["place"]: entry["reason"] for entry in account.rows} == {
        f"{path}:2": "message 0: weight -1.0 is negative", f"{path}:3": "longer than the context",
    }  # fmt: skip
