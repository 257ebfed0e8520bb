"""The microworld's tests and the verifiers agree: reference answers pass, and answers that are wrong do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fledge.core.records import Task
from fledge.evaluate.stage import read_questions
from fledge.microworld import tasks as world_tasks
from fledge.microworld.generate import generate, presets
from fledge.microworld.skills.base import Item
from fledge.microworld.world import World
from fledge.reward import sandbox
from fledge.reward.verifiers import score_many, validate


@pytest.fixture(scope="module")
def items() -> list[Item]:
    world = World(presets["laptop"].model_copy(update={"tests_per_skill": 40}))
    return world_tasks.test_items(world, 40)


def _scorable(tasks: list[tuple[Task, str]]) -> list[tuple[Task, str]]:
    try:
        sandbox.protection()
    except sandbox.SandboxUnavailable:
        return [(task, reply) for task, reply in tasks if task.verifier != "python_tests"]
    return tasks


def test_references_pass(items: list[Item]) -> None:
    tasks = world_tasks.write_tests(items)
    # What conversations say about identity is meant to miss the name: preference pairs teach it.
    pairs = [(task, item.answer) for task, item in zip(tasks, items, strict=True) if item.skill != "identity"]
    pairs = _scorable(pairs)
    failed = [
        (task.id, reply, score.detail)
        for (task, reply), score in zip(pairs, score_many(pairs), strict=True)
        if score.value != 1
    ]
    assert not failed, failed[:5]


def test_wrong_answers_fail(items: list[Item]) -> None:
    tasks = world_tasks.write_tests(items)
    pairs = [(task, wrong) for task, item in zip(tasks, items, strict=True) for wrong in item.wrong]
    pairs = _scorable(pairs)
    assert len(pairs) > 200
    passed = [
        (task.id, task.verifier, task.answer, reply)
        for (task, reply), score in zip(pairs, score_many(pairs), strict=True)
        if score.value == 1
    ]
    assert not passed, (len(passed), passed[:5])


def test_replies_to_other_questions_rarely_pass(items: list[Item]) -> None:
    """A verifier that accepts anything would show here."""
    tasks = world_tasks.write_tests(items)
    skills = sorted({task.skill for task in tasks} - {"identity", "refusal", "idk"})
    for skill in skills:
        mine = [(task, item.answer) for task, item in zip(tasks, items, strict=True) if task.skill == skill]
        turned = _scorable([(task, mine[place - 7][1]) for place, (task, _) in enumerate(mine)])
        if turned:
            assert sum(score.value for score in score_many(turned)) / len(turned) < 0.35, skill


def test_every_task_file_is_valid_and_the_questions_are_read(tmp_path: Path) -> None:
    from fledge.core.readers import read_records

    generate(presets["smoke"], tmp_path)
    for name in ("tasks.jsonl", "test.jsonl"):
        for task in read_records(tmp_path / name, Task):
            validate(task)
    questions = read_questions(tmp_path / "world.json")
    assert {question["language"] for question in questions} == {"zh", "en"}
    assert len(questions) == 12
