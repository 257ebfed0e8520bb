"""Answers that are equal as mathematics but not as text: `\\frac{\\sqrt2}{2}` and `\\frac{1}{\\sqrt2}` (SPEC J.9).

math-verify and sympy decide, which parse and simplify, and may take any time and memory to do so: in a process of their
own (`symbols_child`), each answer in a fork of it with limits. What is not decided in time is not equal, and says so.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence

from fledge.core.errors import ConfigError
from fledge.core.records import Message, Task
from fledge.reward.functions import Function, FunctionFailed
from fledge.reward.maths import LONGEST, extract_answer

_SECONDS = 30.0  # the child keeps a shorter limit for each answer; beyond this the child itself is stuck
_lock = threading.Lock()
_child: list[Function] = []  # one for the process, started when it is first needed


def missing() -> str:
    """Why symbols cannot be compared here; empty where they can."""
    if importlib.util.find_spec("math_verify") is None:
        return "symbolic: true needs math-verify: pip install 'fledge[maths]', or leave symbolic out"
    return ""


def require() -> None:
    """Raises ConfigError where the library is not installed."""
    if why := missing():
        raise ConfigError(why)


def same_answers(pairs: Sequence[tuple[str, str]]) -> list[tuple[bool, str]]:
    """For (right answer, reply): whether the reply's answer is equal, and what was compared. Raises ConfigError."""
    require()
    with _lock:
        return [_same(gold.rsplit("####", 1)[-1].strip(), extract_answer(reply)) for gold, reply in pairs]


def _same(gold: str, answer: str) -> tuple[bool, str]:
    shown = f"answer {answer[:80]!r}, expected {gold[:80]!r}"
    if not answer or max(len(answer), len(gold)) > LONGEST:
        return False, f"{shown}: no answer, or too long for symbols"
    if not _child:
        _child.append(Function("fledge.reward.symbols_child:same", _SECONDS))
    task = Task(id="symbols", messages=(Message(role="user", content="?"),), verifier="maths", answer={"value": gold})
    try:
        outcome = _child[0](task, answer)
    except FunctionFailed as problem:
        outcome = str(problem)
    return outcome == "equal", f"{shown}: {outcome}"
