"""Verifiers: what each accepts and refuses, and bad tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fledge.core.errors import ConfigError, DataError
from fledge.core.records import Message, Task
from fledge.reward import sandbox, verifiers
from fledge.reward.verifiers import Score, score


def task(verifier: str, answer: dict[str, Any]) -> Task:
    return Task(id="t1", messages=(Message(role="user", content="?"),), verifier=verifier, answer=answer)


@pytest.mark.parametrize(
    ("verifier", "answer", "reply", "value"),
    [
        ("number", {"value": 42}, "20+22=42", 1),
        ("number", {"value": 42}, "答案是４２。", 1),
        ("number", {"value": 1234}, "= 1,234", 1),
        ("number", {"value": 42}, "42 and then 43", 0),
        ("number", {"value": 42}, "forty-two", 0),
        ("number", {"value": -5}, "等于-5。", 1),
        ("number", {"value": 0.1}, "0.1", 1),
        ("number", {"value": 42}, "", 0),
        ("number", {"value": 42}, "9" * 5000, 0),
        ("number", {"value": 42}, "9" * 350, 0),
        ("exact", {"texts": ["Paris", "巴黎"]}, "  paris! ", 1),
        ("exact", {"texts": ["Paris", "巴黎"]}, "“巴黎”。", 1),
        ("exact", {"texts": ["Paris"]}, "It is Paris.", 0),
        ("exact", {"texts": ["a b"]}, "A  B", 1),
        ("exact", {"texts": ["PARIS"], "case": True}, "paris", 0),
        ("exact", {"texts": ["PARIS"], "case": True}, "PARIS.", 1),
        ("exact", {"texts": ["..."]}, "", 0),
        ("contains", {"all": ["art"]}, "This is art.", 1),
        ("contains", {"all": ["art"]}, "This is a party.", 0),
        ("contains", {"all": ["art"]}, "它是art吗", 1),
        ("contains", {"all": ["1"]}, "11", 0),
        ("contains", {"all": ["小雀"]}, "我叫小雀。", 1),
        ("contains", {"all": ["a", "b"]}, "only a", 0),
        ("contains", {"any": ["a", "b"]}, "only B", 1),
        ("contains", {"any": ["a", "b"]}, "c", 0),
        ("contains", {"all": ["一月"], "none": ["十一月"]}, "十一月", 0),
        ("contains", {"all": ["一月"], "none": ["十一月"]}, "一月", 1),
        ("contains", {"all": ["c++"]}, "I like C++.", 1),
        ("json", {"value": {"a": 1, "b": [True, None]}}, ' {"b": [true, null], "a": 1.0} ', 1),
        ("json", {"value": {"a": 1}}, 'Sure:\n```json\n{"a": 1}\n```\nthat is it', 1),
        ("json", {"value": {"a": 1}}, '{"a": true}', 0),
        ("json", {"value": {"a": 1}}, '{"a": 1, "b": 2}', 0),
        ("json", {"value": {"a": 1}}, "{'a': 1}", 0),
        ("json", {"value": None}, "NaN", 0),
        ("json", {"value": {"a": "1"}}, '{"a": 1}', 0),
        ("json", {"value": 1}, "[" * 100_000, 0),
        ("refusal", {"refuse": True, "markers": ["can't help"]}, "Sorry, I can’t help with that.", 1),
        ("refusal", {"refuse": True, "markers": ["不能帮"]}, "好的，第一步……", 0),
        ("refusal", {"refuse": False, "markers": ["can't help"]}, "Sure, first ...", 1),
        ("refusal", {"refuse": False, "markers": ["can't help"]}, "I can't help.", 0),
        ("refusal", {"refuse": False, "markers": ["can't help"]}, " ", 0),
        ("unknown", {"markers": ["don't know"]}, "I don't know.", 1),
        ("unknown", {"markers": ["don't know"]}, "It is Paris.", 0),
        ("gsm8k", {"value": "72"}, "#### 72", 1),
        ("maths", {"value": r"\frac{1}{2}"}, r"\boxed{0.5}", 1),
        ("maths", {"value": 3}, "3 and 4", 0),
    ],
)
def test_verdicts(verifier: str, answer: dict[str, Any], reply: str, value: int) -> None:
    assert score(task(verifier, answer), reply).value == value


@pytest.mark.parametrize(
    ("verifier", "answer", "kind", "words"),
    [
        ("numbr", {"value": 1}, ConfigError, "unknown verifier 'numbr'"),
        ("number", {}, DataError, "misses value"),
        ("number", {"value": 1, "tolerance": 2}, DataError, "has unknown tolerance"),
        ("number", {"value": "1"}, DataError, "finite number"),
        ("number", {"value": True}, DataError, "finite number"),
        ("number", {"value": float("nan")}, DataError, "finite number"),
        ("exact", {"texts": []}, DataError, "texts is empty"),
        ("exact", {"texts": "Paris"}, DataError, "list of texts"),
        ("contains", {}, DataError, "`all` or `any`"),
        ("contains", {"all": [""]}, DataError, "empty text"),
        ("contains", {"all": [1]}, DataError, "list of texts"),
        ("refusal", {"markers": ["x"]}, DataError, "misses refuse"),
        ("refusal", {"refuse": 1, "markers": ["x"]}, DataError, "true or false"),
        ("unknown", {"markers": []}, DataError, "markers is empty"),
        ("python_tests", {"entry": "f"}, DataError, "misses tests"),
        ("python_tests", {"entry": "f(", "tests": "assert 1"}, DataError, "Python name"),
        ("python_tests", {"entry": "f", "tests": " "}, DataError, "tests Python text"),
        ("no.such.module:f", {}, ConfigError, "cannot be loaded"),
        ("math:nothing", {}, ConfigError, "cannot be loaded"),
    ],
)
def test_bad_tasks_say_what_is_wrong(verifier: str, answer: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        score(task(verifier, answer), "reply")
    assert "no.such" in str(caught.value) or "t1" in str(caught.value)


def test_validation_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_validation.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    verifiers.validate(task("mine_for_validation:check", {}))


def test_own_verifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_verifiers.py").write_text(
        "from fledge.reward.verifiers import Score\n"
        "def length(task, reply): return Score(min(1.0, len(reply) / task.answer['n']), 'length')\n"
        "def yes(task, reply): return reply == 'yes'\n"
        "def wrong(task, reply): return 'good'\n"
        "def high(task, reply): return 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert score(task("mine_verifiers:length", {"n": 4}), "ab") == Score(0.5, "length")
    assert score(task("mine_verifiers:yes", {}), "yes").value == 1.0
    for name in ("wrong", "high"):
        with pytest.raises(ConfigError, match=r"must return a Score or a number in \[0, 1\]"):
            score(task(f"mine_verifiers:{name}", {}), "x")


def _protected() -> bool:
    try:
        return bool(sandbox.protection())
    except sandbox.SandboxUnavailable:
        return False


@pytest.mark.skipif(not _protected(), reason="this machine cannot confine code")
def test_code_of_replies() -> None:
    one = task("python_tests", {"entry": "f", "tests": "assert f(2) == 5\nassert f(0) == 3\n"})
    replies = {
        "```python\ndef f(x):\n    return x + 3\n```": 1.0,
        "Here:\n\n```py\ndef f(x):\n    return x + 3\n```\nDone.": 1.0,
        "def f(x):\n    return x + 3": 1.0,
        "```python\ndef f(x):\n    return x + 3": 1.0,
        "```python\ndef f(x):\n    return 5\n```": 0.0,
        "I cannot write code.": 0.0,
        "": 0.0,
    }
    pairs = [(one, reply) for reply in replies]
    scores = verifiers.score_many([*pairs, (task("number", {"value": 1}), "1")])
    assert [found.value for found in scores] == [*replies.values(), 1.0]
    assert "1 of 2 tests" in scores[4].detail


def test_code_is_never_run_unprotected(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> sandbox.Protection:
        raise sandbox.SandboxUnavailable("no protection here")

    monkeypatch.setattr(sandbox, "protection", unavailable)
    with pytest.raises(sandbox.SandboxUnavailable, match="no protection here"):
        score(task("python_tests", {"entry": "f", "tests": "assert f() == 1"}), "def f(): return 1")


def test_names() -> None:
    expected = {"number", "exact", "contains", "json", "refusal", "unknown", "python_tests", "gsm8k", "maths"}
    assert set(verifiers.names()) == expected | {"format", "instructions"}
