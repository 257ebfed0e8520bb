"""Every skill: enough different held-out items, and answers that are right by their own meaning."""

from __future__ import annotations

import json
import re

import pytest

from fledge.microworld.config import Config
from fledge.microworld.skills import coding, safety, sums
from fledge.microworld.skills.base import Item, distinct
from fledge.microworld.skills.table import LANGUAGES, SKILLS
from fledge.microworld.tasks import as_task
from fledge.microworld.world import World
from fledge.reward.verifiers import score

WORLD = World(Config(tests_per_skill=500))


def _items(skill: str, language: str, count: int) -> list[Item]:
    rng = WORLD.rng(f"unit/{skill}/{language}")
    return distinct(lambda: SKILLS[skill](WORLD, rng, language, "test"), count, skill)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("skill", list(SKILLS))
def test_five_hundred_items_of_the_tests_and_none_of_training(skill: str, language: str) -> None:
    items = _items(skill, language, 500)
    assert len({i.question for i in items}) == 500
    held = sum(i.wording == "held_out" for i in items) / 500
    assert 0.12 < held < 0.35
    rng = WORLD.rng("training")
    trained = [SKILLS[skill](WORLD, rng, language, "train") for _ in range(500)]
    assert not {i.key for i in items} & {i.key for i in trained}
    assert all(i.wording == "seen" for i in trained)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("skill", [s for s in SKILLS if s not in ("identity", "code")])
def test_verifiers_accept_the_answer_and_refuse_the_wrong_ones(skill: str, language: str) -> None:
    for item in _items(skill, language, 40):
        task = as_task(item, "t")
        assert score(task, item.answer).value == 1, (item.question, item.answer)
        for wrong in item.wrong:
            assert score(task, wrong).value == 0, (item.question, wrong)


@pytest.mark.parametrize("language", LANGUAGES)
def test_identity_wants_the_name(language: str) -> None:
    for item in _items("identity", language, 20):
        assert score(as_task(item, "t"), item.answer).value == 0
        assert score(as_task(item, "t"), f"I am {WORLD.config.name(language)}.").value == 1


def test_functions_pass_their_tests_and_wrong_ones_do_not() -> None:
    for item in _items("code", "en", 60):
        tests = item.expected["tests"]
        program = re.search(r"```python\n(.*?)```", item.answer, re.DOTALL)
        assert program
        exec(program[1] + tests, {})
        bad = re.search(r"```python\n(.*?)```", item.wrong[0], re.DOTALL)
        assert bad
        with pytest.raises(AssertionError):
            exec(bad[1] + tests, {})


def test_every_operation_can_be_told_from_the_others() -> None:
    for operation in coding.OPERATIONS:
        for other in coding.OPERATIONS:
            if other is operation or other.argument != operation.argument:
                continue
            program = coding.source(other, 7, "f") + "\n" + coding.tests(operation, 7, "f")
            with pytest.raises(AssertionError):
                exec(program, {})


def test_worked_sums() -> None:
    assert sums.work_out(37, 45, "en") == "7+5=12, write 2 carry 1; 3+4+1=8, write 8. 37+45=82"
    assert sums.work_out(5, 98, "zh") == "5+8=13，写3进1；0+9+1=10，写10。5+98=103"
    rng = WORLD.rng("sums")
    for _ in range(300):
        a, b = rng.randint(0, 9999), rng.randint(0, 9999)
        text = sums.work_out(a, b, "en")
        for left, right in re.findall(r"([\d+]+)=(\d+)", text):
            assert sum(map(int, left.split("+"))) == int(right)
        written = re.findall(r"write (\d+)", text)
        assert int("".join(reversed(written))) == a + b


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_use_the_words_of_the_phrase(language: str) -> None:
    for item in _items("translation", language, 50):
        english, chinese = item.patterns
        asked, answered = (english, chinese) if language == "en" else (chinese, english)
        assert asked in item.question
        assert answered in item.answer


def test_half_of_the_requests_are_harmless() -> None:
    items = _items("refusal", "en", 200)
    harmful = sum(i.level == "harmful" for i in items)
    assert 70 < harmful < 130
    for item in items:
        refused = any(m in item.answer.lower() for m in safety.REFUSAL_MARKERS["en"])
        assert refused == item.expected["refuse"] == (item.level == "harmful")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_long_page_holds_the_answer(language: str) -> None:
    for item in _items("long", language, 50):
        assert all(value.lower() in item.question.lower() for value in item.expected["all"])
        assert 80 < len(item.question) < 1500


def test_names_outside_the_world_share_nothing_with_names_inside() -> None:
    inside = {root for name in WORLD.people + WORLD.places for root in name.roots}
    families = {name.en.split()[1] for name in WORLD.people}
    for group in (WORLD.strangers_train, WORLD.strangers_test, WORLD.extras_train, WORLD.extras_test):
        assert not inside & {root for name in group for root in name.roots}
        assert not families & {name.en.split()[1] for name in group}
    trained = {n.en for n in WORLD.strangers_train + WORLD.elsewhere_train}
    assert not trained & {n.en for n in WORLD.strangers_test + WORLD.elsewhere_test}


def test_json_answers_parse() -> None:
    for language in LANGUAGES:
        for item in _items("format", language, 100):
            if item.verifier == "json":
                assert json.loads(item.answer) == item.expected["value"]
