"""The stage: replies, scores, what is skipped, going on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluate_items import ITEMS, make_task

from fledge.core.artefact import read_manifest
from fledge.core.bench import Bench, Planned
from fledge.core.config import Config as BaseConfig
from fledge.core.errors import ConfigError, DataError
from fledge.core.readers import write_jsonl
from fledge.core.records import Message
from fledge.evaluate import stage
from fledge.evaluate.stage import Config, run
from fledge.reward import sandbox


def _protected() -> bool:
    try:
        return bool(sandbox.protection())
    except sandbox.SandboxUnavailable:
        return False


needs_sandbox = pytest.mark.skipif(not _protected(), reason="this machine cannot confine code")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@needs_sandbox
@pytest.mark.parametrize("prompt", ["chat", "plain"])
def test_scores_are_those_that_the_replies_deserve(prompt: Any, model: Path, tasks: Path, tmp_path: Path) -> None:
    config = Config(model=model, tasks=tasks, prompt=prompt, max_new_tokens=48, batch=4, bootstrap=200)
    run(config, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["reply"] for row in rows] == [item[2] for item in ITEMS]
    assert [row["score"] for row in rows] == [item[-1] for item in ITEMS]
    assert {row["finish"] for row in rows} == {"stop"}
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    sums = scores["skills"]["sums"]
    assert (sums["en"]["mean"], sums["en"]["n"]) == (pytest.approx(2 / 3), 3)
    assert sums["en"]["low"] <= 2 / 3 <= sums["en"]["high"]
    assert (sums["zh"]["mean"], sums["zh"]["n"]) == (1.0, 1)
    assert (sums["en"]["wording"]["seen"]["mean"], sums["en"]["wording"]["held_out"]["mean"]) == (0.5, 1.0)
    assert sums["en"]["level"]["1-digit"]["n"] == 2
    assert scores["skills"]["code"]["en"]["mean"] == 0.5
    assert scores["skipped"] == []
    assert scores["prompt"] == prompt
    assert sandbox.protection().kind in scores["sandbox"]
    manifest = read_manifest(tmp_path / "out")
    assert (manifest["kind"], manifest["stage"]) == ("evaluation", "evaluate")
    assert manifest["metrics"]["scores"]["identity/zh"] == 1.0
    assert sorted(manifest["inputs"]) == ["model", "tasks"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json", "results.jsonl", "scores.json",
    ]  # fmt: skip


def test_batch_size_does_not_change_results(model: Path, tasks: Path, tmp_path: Path) -> None:
    files = []
    for batch in (1, 16):
        config = Config(model=model, tasks=tasks, skills=("sums", "identity"), max_new_tokens=24, batch=batch)
        run(config, tmp_path / str(batch))
        files.append((tmp_path / str(batch) / "results.jsonl").read_text(encoding="utf-8"))
    assert files[0] == files[1]


def test_done_is_done(model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model=model, tasks=tasks, skills=("sums",), max_new_tokens=16)
    run(config, tmp_path / "out")
    monkeypatch.setattr(stage, "_replies", None)
    run(config, tmp_path / "out")


def test_goes_on_after_an_interruption(
    model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(model=model, tasks=tasks, code=False, max_new_tokens=24, batch=1)
    run(config, tmp_path / "whole")
    monkeypatch.setattr(stage, "PORTION", 2)
    answer = stage.Writer.answer
    asked: list[str] = []

    def interrupted(self: Any, asks: Any, on_progress: Any = None) -> Any:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.extend(ask.key for ask in asks)
        return answer(self, asks, on_progress)

    monkeypatch.setattr(stage.Writer, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut")
    with (tmp_path / ".cut.partial" / "replies.jsonl").open("a") as file:
        file.write('{"id": "t0", "rep')  # torn in the middle of a line
    again: list[str] = []

    def counted(self: Any, asks: Any, on_progress: Any = None) -> Any:
        again.extend(ask.key for ask in asks)
        return answer(self, asks, on_progress)

    monkeypatch.setattr(stage.Writer, "answer", counted)
    run(config, tmp_path / "cut")
    assert len(asked) == 2
    assert set(asked).isdisjoint(again)
    assert len(again) == 4
    for name in ("results.jsonl", "scores.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_code_is_skipped_with_the_reason_where_nothing_protects(
    model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable() -> sandbox.Protection:
        raise sandbox.SandboxUnavailable("no namespaces, no Landlock")

    monkeypatch.setattr(sandbox, "protection", unavailable)
    run(Config(model=model, tasks=tasks, max_new_tokens=24), tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert "code" not in scores["skills"]
    assert scores["skipped"] == [{"skill": "code", "language": "en", "reason": "no namespaces, no Landlock", "n": 2}]
    assert scores["sandbox"] == "unavailable"


def test_code_can_be_switched_off(model: Path, tasks: Path, tmp_path: Path) -> None:
    run(Config(model=model, tasks=tasks, code=False, max_new_tokens=24), tmp_path / "out")
    (skipped,) = json.loads((tmp_path / "out" / "scores.json").read_text())["skipped"]
    assert (skipped["n"], skipped["reason"]) == (2, "running code is switched off (code=false)")


def test_prompts_that_do_not_fit_are_counted_not_scored(model: Path, tmp_path: Path) -> None:
    long = make_task(0).model_copy(update={"id": "long", "messages": (Message(role="user", content="2+3? " * 60),)})
    write_jsonl(tmp_path / "t.jsonl", [make_task(0), long])
    run(Config(model=model, tasks=tmp_path / "t.jsonl", max_new_tokens=24), tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["skills"]["sums"]["en"]["n"] == 1
    (skipped,) = scores["skipped"]
    assert (skipped["n"], skipped["reason"]) == (1, "the prompt does not fit the context of 96 tokens")
    assert read_manifest(tmp_path / "out")["metrics"]["skipped"] == 1


def test_cut_replies_are_counted(model: Path, tasks: Path, tmp_path: Path) -> None:
    run(Config(model=model, tasks=tasks, skills=("sums",), max_new_tokens=2), tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["skills"]["sums"]["en"]["cut"] == 3
    assert {(row["finish"], row["tokens"]) for row in rows_of(tmp_path / "out")} == {("length", 2)}


def test_questions_are_answered(model: Path, tasks: Path, tmp_path: Path) -> None:
    card = {
        "knows": {},
        "six_questions": [
            {"name": "identity", "language": "zh", "prompt": "你是谁？", "expect": "小雀"},
            {"name": "sum", "language": "en", "prompt": "2+3?"},
            {"name": "long", "language": "en", "prompt": "2+3? " * 60},
        ],
    }
    (tmp_path / "world.json").write_text(json.dumps(card), encoding="utf-8")
    config = Config(model=model, tasks=tasks, skills=("sums",), max_new_tokens=24, questions=tmp_path / "world.json")
    run(config, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "answers.json").read_text())
    assert found["prompt"] == "chat"
    first, second, third = found["answers"]
    assert (first["kind"], first["language"], first["reply"], first["expect"]) == (
        "identity",
        "zh",
        "我叫小雀。",
        "小雀",
    )
    assert second["reply"] == "2+3=5"
    assert "does not fit" in third["skipped"]


@pytest.mark.parametrize("text", ["nonsense", "{}", "[]", '[{"text": "x"}]', '[{"prompt": " "}]', "[3]"])
def test_bad_questions(text: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"questions\.json"):
        stage.read_questions(path)


def test_texts_are_questions_too(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_text('["你好", "Hello"]', encoding="utf-8")
    assert [(q["language"], q["prompt"]) for q in stage.read_questions(path)] == [("zh", "你好"), ("en", "Hello")]


def test_sampling_is_seeded_and_differs_between_items(model: Path, tmp_path: Path) -> None:
    copies = [make_task(0).model_copy(update={"id": f"c{number}"}) for number in range(6)]
    write_jsonl(tmp_path / "t.jsonl", copies)
    replies = []
    for name in ("a", "b"):
        config = Config(model=model, tasks=tmp_path / "t.jsonl", temperature=5.0, max_new_tokens=12, seed=3)
        run(config, tmp_path / name)
        replies.append([row["reply"] for row in rows_of(tmp_path / name)])
    assert replies[0] == replies[1]
    assert len(set(replies[0])) > 1


def test_limit_draws_the_same_items_for_every_model(tasks: Path, tmp_path: Path) -> None:
    many = [make_task(number % 3).model_copy(update={"id": f"m{number:02}"}) for number in range(30)]
    write_jsonl(tmp_path / "t.jsonl", many)
    drawn = [
        [task.id for task in stage.read_tasks(Config(model=Path(name), tasks=tmp_path / "t.jsonl", limit=7))]
        for name in ("a", "b")
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 7
    other = stage.read_tasks(Config(model=Path("a"), tasks=tmp_path / "t.jsonl", limit=7, seed=1))
    assert [task.id for task in other] != drawn[0]


def test_bad_tasks(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"

    def read(**more: Any) -> None:
        stage.read_tasks(Config(model=Path("m"), tasks=path, **more))

    write_jsonl(path, [make_task(0), make_task(0)])
    with pytest.raises(DataError, match="'t0' occurs twice"):
        read()
    write_jsonl(path, [make_task(0).model_copy(update={"verifier": "numbr"})])
    with pytest.raises(ConfigError, match="unknown verifier 'numbr'"):
        read()
    write_jsonl(path, [make_task(0).model_copy(update={"answer": {}})])
    with pytest.raises(DataError, match="misses value"):
        read()
    write_jsonl(path, [make_task(0)])
    with pytest.raises(DataError, match="no tasks of skill arithmetic"):
        read(skills=("arithmetic",))
    path.write_text("")
    with pytest.raises(DataError, match="no tasks in"):
        read()
    path.write_text('{"id": 3\n')
    with pytest.raises(DataError, match=r"t\.jsonl"):
        read()


def test_estimate(model: Path, tasks: Path, tmp_path: Path) -> None:
    config = Config(model=model, tasks=tasks, max_new_tokens=24)
    found = stage.estimate(config, Bench(seconds=0.1))
    assert (found["items"], found["tokens"]) == (len(ITEMS), len(ITEMS) * 24)
    assert 1.5 < found["seconds"] < 30
    assert stage.estimate(Config(model=tmp_path / "none", tasks=tasks), Bench(measure=False)) == {}
    assert stage.estimate(Config(model=model, tasks=tmp_path / "none"), Bench(measure=False)) == {}


def test_estimate_of_tasks_that_are_not_written_yet(model: Path, tmp_path: Path) -> None:
    facts = {"test_rows": 400, "test_groups": 4, "test_answer_tokens_plain": 9}
    planned = Planned("world", "microworld", BaseConfig(), tmp_path / "world", facts)
    bench = Bench(measure=False, planned={"world": planned})

    def found(**changes: Any) -> tuple[int, int]:
        config = Config.model_validate({"model": model, "tasks": tmp_path / "world" / "test.jsonl", **changes})
        facts = stage.estimate(config, bench)
        return facts["items"], facts["tokens"]

    assert found(prompt="plain") == (400, 400 * 9)
    assert found(prompt="plain", limit=10) == (40, 40 * 9)
    assert found(max_new_tokens=24) == (400, 400 * 24)  # of chat nothing is known: as many as are allowed
