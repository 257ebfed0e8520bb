"""Tools that answers call: what is a call, and what a calculator must not do with a model's text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.core.records import Message, Task
from fledge.reward import sandbox
from fledge.reward.tools import Said, Tool, ToolConfig, calculate, find_call, make_tool

TASK = Task(id="t", messages=(Message(role="user", content="?"),), verifier="number", answer={"value": 1})


def tool(**values: Any) -> Tool:
    return make_tool(build(ToolConfig, values))


@pytest.mark.parametrize(
    ("turn", "call"),
    [
        ("<tool_call>2+2</tool_call>", "2+2"),
        ("I compute.\n<tool_call>\n2+2\n</tool_call>\n", "2+2"),
        ('<tool_call>{"name": "calculator", "arguments": {"expression": "2*3"}}</tool_call>', "2*3"),
        ('<tool_call>{"name": "f", "arguments": {"x": [1]}}</tool_call>', "[1]"),
        ('<tool_call>{"name": "f"}</tool_call>', '{"name": "f"}'),
        ("<tool_call>1</tool_call><tool_call>2</tool_call>", "2"),
        ("<tool_call>2+2</tool_call> is 4", None),
        ("<tool_call>2+2", None),
        ("2+2</tool_call>", None),
        ("", None),
    ],
)
def test_a_turn_calls_if_it_ends_with_a_call(turn: str, call: str | None) -> None:
    assert find_call(turn) == call


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2+3*4", "14"), ("(1/3)*3", "1"), ("7//2", "3"), ("-7 % 3", "2"), ("2**10", "1024"), ("1/8", "0.125"),
     ("0.1+0.2", "0.3"), ("+5", "5")],
)  # fmt: skip
def test_the_calculator_is_exact(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", "2+", "1/0", "9**9**9", "2**1000", "x", "abs(1)", "__import__('os')", "'a'*9", "1e999", "[1][0]", "True", "1j",
     "(" * 150 + "1" + ")" * 49, "9" * 300, "((9**99)*9)**250", "2 if 1 else 3", "lambda: 1"],
)  # fmt: skip
def test_what_is_no_sum_of_numbers_is_an_error_at_once(expression: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ValueError, match=r"number|zero|characters"):
        calculate(expression)
    assert time.perf_counter() - started < 0.5
    (said,) = tool(use="calculator")([(TASK, expression)])
    assert said.failed
    assert said.text.startswith("error: ")


def test_a_users_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises or hangs is an error for the model to read; the next call is answered."""
    (tmp_path / "own_tool.py").write_text(
        "def look(task, call):\n    while call == 'hang':\n        pass\n    return {'a': f'{task.id} knows'}[call]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    look = tool(use="own_tool:look", seconds=0.3)
    said = look([(TASK, "a"), (TASK, "b"), (TASK, "hang"), (TASK, "a")])
    assert [one.failed for one in said] == [False, True, True, False]
    assert said[0] == Said("t knows")
    assert "KeyError" in said[1].text
    assert "no answer in 0.3 seconds" in said[2].text
    with pytest.raises(ConfigError, match="cannot be loaded"):
        tool(use="own_tool:nowhere")
    with pytest.raises(ConfigError, match="choose calculator, python"):
        tool(use="abacus")


def test_python_runs_in_the_sandbox() -> None:
    try:
        sandbox.protection()
    except sandbox.SandboxUnavailable as problem:
        pytest.skip(str(problem))
    said = tool(use="python", seconds=2)([(TASK, "print(6*7)"), (TASK, "open('/etc/passwd').read()"), (TASK, "1")])
    assert said[0] == Said("42")
    assert said[1].failed
    assert said[2] == Said("error: it printed nothing", failed=True)
