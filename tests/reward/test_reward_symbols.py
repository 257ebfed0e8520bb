"""Answers equal as mathematics, in a child with limits; the form alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fledge.core.errors import ConfigError, DataError
from fledge.core.records import Message, Task
from fledge.reward import symbols, verifiers
from fledge.reward.verifiers import score


def task(verifier: str, answer: dict[str, Any]) -> Task:
    return Task(id="t", messages=(Message(role="user", content="?"),), verifier=verifier, answer=answer)


def boxed(answer: str) -> str:
    return rf"So it is \boxed{{{answer}}}."


class TestSymbols:
    pytestmark = pytest.mark.skipif(symbols.missing() != "", reason="math-verify is not installed")

    @pytest.mark.parametrize(
        ("gold", "answer", "right"),
        [
            (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
            ("x^2-1", "(x-1)(x+1)", True),
            (r"\sqrt{4}", "2", True),
            (r"2\pi", "6.2", False),
            ("(1,2)", "(2,1)", False),
            (r"\{1,2\}", r"\{2,1\}", True),
            ("7", "__import__('os').system('true')", False),
        ],
    )
    def test_equality(self, gold: str, answer: str, right: bool) -> None:
        found = score(task("maths", {"value": gold, "symbolic": True}), boxed(answer))
        assert found.value == float(right), found

    def test_only_where_it_is_asked_for(self) -> None:
        assert score(task("maths", {"value": "x^2-1"}), boxed("(x-1)(x+1)")).value == 0

    @pytest.mark.long
    def test_what_takes_too_long_or_too_much_is_not_equal(self) -> None:
        """And the next answer is judged as ever."""
        one = task("maths", {"value": "1", "symbolic": True})
        started = time.monotonic()
        found = verifiers.score_many([(one, boxed("9^{9^{9^{9}}}")), (one, boxed(r"\cos 0"))])
        assert time.monotonic() - started < 30
        assert [result.value for result in found] == [0, 1]
        assert "seconds" in found[0].detail or "limit" in found[0].detail


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"fledge\[maths\]"):
        verifiers.validate(task("maths", {"value": "1", "symbolic": True}))
    verifiers.validate(task("maths", {"value": "1"}))
    assert score(task("maths", {"value": "1", "symbolic": False}), boxed("2")).value == 0


@pytest.mark.parametrize(
    ("answer", "reply", "value"),
    [
        ({"boxed": True}, boxed("7"), 0.1),
        ({"boxed": True, "credit": 0.05}, boxed("wrong, but boxed"), 0.05),
        ({"boxed": True}, r"\boxed{7", 0),
        ({"json": True}, '{"a": 1}', 0.1),
        ({"json": True}, 'Sure: {"a": 1}', 0),
        ({"json": True}, "[" * 100_000, 0),
        ({"tags": ["think", "answer"]}, "<think>1+1</think>\n<answer>2</answer>", 0.1),
        ({"tags": ["think", "answer"]}, "<answer>2</answer><think>1+1</think>", 0),
        ({"tags": ["think", "answer"]}, "<think> </think><answer>2</answer>", 0),
        ({"tags": ["think", "answer"]}, "<think>1</think><answer>2</answer> and more", 0),
        ({"tags": ["think", "answer"]}, "<think>" * 50_000, 0),
    ],
)
def test_form_alone_is_worth_a_tenth(answer: dict[str, Any], reply: str, value: float) -> None:
    assert score(task("format", answer), reply).value == value


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"boxed": True, "credit": 0.5}, "at most 0.1"),
        ({"boxed": True, "credit": 0}, "above 0"),
        ({"boxed": True, "credit": True}, "a number"),
        ({}, "needs one of"),
        ({"boxed": True, "json": True}, "needs one of"),
        ({"tags": "think"}, "list of texts"),
    ],
)
def test_forms_that_cannot_be_asked(answer: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        verifiers.validate(task("format", answer))
