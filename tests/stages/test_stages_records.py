"""Stage records: fields, limits, lengths, repeats, and bad rows; and the recipe real-data on the real files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fledge.core.artefact import read_manifest
from fledge.core.bench import Bench
from fledge.core.errors import ConfigError, DataError
from fledge.core.readers import read_records
from fledge.core.records import Conversation, Preference, Record, Task
from fledge.recipe import load_plan, stage_config
from fledge.stages import records


def make(folder: Path, rows: list[Any], kind: str = "task", out: str = "out", **source: Any) -> dict[str, Any]:
    """Run the stage on rows; the metrics, with the records under ``rows`` and the skipped under ``bad``."""
    path = folder / "rows.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    on_error = source.pop("on_error", "skip")
    seed = source.pop("seed", 0)
    values = {"kind": kind, "sources": [{"path": str(path), **source}], "on_error": on_error, "seed": seed}
    records.run(stage_config("records", values, "test"), folder / out)
    metrics: dict[str, Any] = dict(read_manifest(folder / out)["metrics"])
    kinds: dict[str, type[Record]] = {"task": Task, "conversation": Conversation, "preference": Preference}
    bad = folder / out / "skipped.jsonl"
    lines = bad.read_text(encoding="utf-8").splitlines() if bad.exists() else []
    return metrics | {
        "rows": list(read_records(folder / out / "records.jsonl", kinds[kind])),
        "bad": [json.loads(line) for line in lines],
    }


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows: list[Any] = [{"question": f"{n}?", "answer": n} for n in range(10)]
    rows += ["not json\n", {"question": "0?", "answer": 0}, {"question": "x" * 99, "answer": 1}, {"q": 1}]
    made = make(tmp_path, rows, max_characters=50, limit=4, skill="s", language="en")
    (count,) = made["sources"]
    assert {key: count[key] for key in ("rows", "used", "skipped", "too_long", "repeated", "over_limit")} == {
        "rows": 14, "used": 4, "skipped": 2, "too_long": 1, "repeated": 1, "over_limit": 6,
    }  # fmt: skip
    assert count["rows"] == sum(value for key, value in count.items() if key not in ("rows", "file"))
    assert [row["place"].rpartition(":")[2] for row in made["bad"]] == ["11", "14"]
    task = made["rows"][0]
    assert (task.skill, task.language) == ("s", "en")
    line = int(task.meta["source"].rpartition(":")[2])
    assert task.meta["source"] == f"{tmp_path.name}/rows.jsonl:{line}"
    assert task.answer["value"] == str(line - 1)


def test_bad_row_stops_where_it_should(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no task here"):
        make(tmp_path, [{"question": "a?", "answer": 1}, {"q": 1}], on_error="fail")
    with pytest.raises(DataError, match=r"no usable row; skipped 1, .*first: .*no task here"):
        make(tmp_path, [{"q": 1}], out="other")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "other").exists()


def test_fields_say_where_the_parts_are(tmp_path: Path) -> None:
    rows = [
        {"Body": "Two hens.", "Question": "Legs?", "Answer": 4.0, "more": [{"x": "ignored"}]},
        {"Body": "Three hens.", "Answer": 6.0},
    ]
    made = make(tmp_path, rows, fields={"question": "{Body} {Question}", "answer": "{Answer}"})
    assert made["rows"][0].messages[0].content == "Two hens. Legs?"
    assert made["rows"][0].answer == {"value": "4"}
    assert made["bad"][0]["reason"].startswith(
        "fields: nothing at 'Question' ('Question' is not in ['Answer', 'Body'])"
    )
    nested = {"a": [{"b": "deep"}]}
    assert records.fill("{a.0.b}!", nested) == "deep!"
    with pytest.raises(DataError, match="'1' is not in list"):
        records.fill("{a.1.b}", nested)


def test_match_takes_the_wrapping_off(tmp_path: Path) -> None:
    rows = [{"prompt": "### Ask: why?\n### Say:", "response": "so"}, {"prompt": "bare", "response": "so"}]
    made = make(tmp_path, rows, kind="conversation", match={"prompt": r"(?s)### Ask: (.*?)\s*### Say:"})
    assert [message.content for message in made["rows"][0].messages] == ["why?", "so"]
    assert made["bad"][0]["reason"].startswith("match: 'prompt' does not match")
    for pattern in ("(", "no group"):
        with pytest.raises(ConfigError, match="match"):
            make(tmp_path, rows, kind="conversation", match={"prompt": pattern})


def test_chosen_answers_can_be_imitated(tmp_path: Path) -> None:
    pair = {"conversations": [{"from": "system", "value": "short"}, {"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "hello"}, "rejected": {"from": "gpt", "value": "go"}}  # fmt: skip
    made = make(tmp_path, [pair], kind="conversation", imitate_chosen=True, language="en")
    assert [(m.role, m.content) for m in made["rows"][0].messages] == [
        ("system", "short"), ("user", "hi"), ("assistant", "hello"),
    ]  # fmt: skip
    assert made["rows"][0].meta["language"] == "en"
    with pytest.raises(DataError, match="imitate_chosen makes conversations"):
        make(tmp_path, [pair], kind="preference", imitate_chosen=True, out="other")


def test_the_draw_follows_the_seed(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": n} for n in range(50)]
    one = [task.id for task in make(tmp_path, rows, limit=5, out="one")["rows"]]
    assert one == [task.id for task in make(tmp_path, rows, limit=5, out="two")["rows"]]
    assert one != [task.id for task in make(tmp_path, rows, limit=5, seed=1, out="three")["rows"]]


# ---- the shipped recipe on the real files ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    plan = load_plan("real-data", [f"data={real_data}"], tmp_path_factory.mktemp("runs"))
    steps = [step for step in plan.steps if step.stage == "records"]
    for step in steps:
        step.module.run(step.config, step.folder)
        facts = records.estimate(step.config, Bench(measure=False))
        assert facts["records_rows"] >= read_manifest(step.folder)["metrics"]["records"] > 0
    return {step.name: step.folder / "records.jsonl" for step in steps}


def test_recipe_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a folder: give data=PATH"):
        load_plan("real-data", [], tmp_path)
    plan = load_plan("real-data", ["data=/some/where"], tmp_path)
    (corpus,) = [step for step in plan.steps if step.stage == "corpus"]
    assert "/some/where/text/chinese_classics" in corpus.config.inputs


def test_real_test_questions(made: dict[str, Path]) -> None:
    tasks = list(read_records(made["tests"], Task))
    assert Counter(task.skill for task in tasks) == {"gsm8k": 1319, "svamp": 1000, "cmath": 600}
    assert len({task.id for task in tasks}) == len(tasks)
    ducks = tasks[0]
    assert "ducks lay 16 eggs" in ducks.messages[0].content
    assert ducks.answer == {"value": "18"}
    philip = next(task for task in tasks if task.skill == "svamp")
    assert philip.answer == {"value": "145"}
    assert philip.messages[0].content.endswith("each group of bananas?")
    zh = next(task for task in tasks if task.skill == "cmath")
    assert zh.language == "zh"
    assert zh.answer == {"value": "9"}
    for task in tasks:
        assert verifiers_score(task) == 1, task.id


def verifiers_score(task: Task) -> float:
    from fledge.reward import verifiers

    return verifiers.score(task, f"#### {task.answer['value']}").value


def test_real_dialogues(made: dict[str, Path]) -> None:
    found = list(read_records(made["dialogues"], Conversation))
    files = Counter(record.meta["source"].partition(":")[0] for record in found)
    assert set(files) == {
        "gpteacher/roleplay-simple.json.gz", "gpteacher/codegen-instruct.json.gz", "gsm8k/train.jsonl.gz",
        "dolly_hhrlhf_small/train_small.jsonl", "self_instruct_seeds/seed_tasks.jsonl",
        "preference_demo/dpo_zh_demo.json",
    }  # fmt: skip
    assert not any("### Instruction" in message.content for record in found for message in record.messages)
    assert all(record.messages[-1].role == "assistant" for record in found)
    seed = next(record for record in found if record.meta.get("id") == "seed_task_1")
    assert seed.messages[0].content.endswith("Night : Day :: Right : Left")
    assert "they are opposites" in seed.messages[1].content
    counts = read_manifest(made["dialogues"].parent)["metrics"]["sources"]
    assert all(c["rows"] == sum(v for k, v in c.items() if k not in ("rows", "file")) for c in counts)


def test_real_pairs_and_sums(made: dict[str, Path], real_data: Path) -> None:
    pairs = list(read_records(made["pairs"], Preference))
    assert Counter(pair.meta["language"] for pair in pairs).keys() == {"zh", "en"}
    assert len(pairs) > 500
    assert any("language game" in pair.prompt[0].content for pair in pairs)
    sums = list(read_records(made["sums"], Task))
    assert len(sums) == 7473
    assert sums[0].answer == {"value": "72"}
    assert sums[0].skill == "gsm8k"
    direct = next(iter(read_records(real_data / "eval/gsm8k/train.jsonl.gz", Task)))
    assert direct.id == sums[0].id
    assert direct.messages == sums[0].messages


def test_preferences_in_the_shape_of_apis(tmp_path: Path) -> None:
    """Any shape in, that of fine-tuning APIs out, and back; what it cannot say is refused with its place."""
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": "q", "chosen": "good", "rejected": "bad"}, {"prompt": "r", "chosen": "g", "rejected": "b"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    to = {"kind": "preference", "shape": "api", "sources": [{"path": str(file)}]}
    records.run(stage_config("records", to, "test"), tmp_path / "api")
    there = (tmp_path / "api" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert [sorted(json.loads(line)) for line in there] == [["input", "non_preferred_output", "preferred_output"]] * 2
    back = {"kind": "preference", "sources": [{"path": str(tmp_path / "api" / "records.jsonl")}]}
    records.run(stage_config("records", back, "test"), tmp_path / "back")
    again = list(read_records(tmp_path / "back" / "records.jsonl", Preference))
    assert [(pair.chosen, pair.rejected) for pair in again] == [("good", "bad"), ("g", "b")]
    with pytest.raises(ConfigError, match="shape=api is one of preferences"):
        stage_config("records", {**to, "kind": "task"}, "test")
