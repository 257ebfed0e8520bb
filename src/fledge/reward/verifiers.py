"""Verifiers: does a reply answer its task? Each is a function of (answer, reply), found by name.

`score(task, reply)` is the door; `score_many` runs code of many replies side by side in the sandbox.

| name | `answer` | what is checked |
|---|---|---|
| number | value | the last number of the reply |
| exact | texts, case (optional) | the whole reply, without outer punctuation and (unless `case`) case, is one of them |
| contains | all, any, none (at least one) | texts that occur in the reply; ASCII ones as whole words |
| json | value | the reply, or a fenced block in it, is equal JSON |
| refusal | refuse, markers | whether a marker of refusal occurs, as it should |
| unknown | markers | a marker of not knowing occurs |
| python_tests | entry, tests | the reply's code passes the tests in the sandbox |
| gsm8k, maths | value, symbolic (optional) | SPEC J.9; symbolic: also by math-verify, in a child |
| format | one of boxed, json, tags; credit (optional) | the form alone, for a tenth at most |
| instructions | instructions, kwargs, loose, partial (optional) | see `reward.instructions` |
| module:function | anything | the user's own, `(task, reply) -> Score, float or bool` |
"""

from __future__ import annotations

import importlib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from fledge.core.errors import ConfigError, DataError
from fledge.core.records import Task
from fledge.reward import instructions, sandbox, symbols
from fledge.reward.maths import check_answer, last_boxed, numbers, same_number
from fledge.reward.texts import occurs, simplify, trim


@dataclass(frozen=True)
class Score:
    """`value` in [0, 1]; `detail` says in words what was compared."""

    value: float
    detail: str = ""


Verifier = Callable[[dict[str, Any], str], Score]


@dataclass(frozen=True)
class _Entry:
    check: Verifier
    required: frozenset[str]
    optional: frozenset[str]


_REGISTRY: dict[str, _Entry] = {}


def verifier(name: str, required: Iterable[str] = (), optional: Iterable[str] = ()) -> Callable[[Verifier], Verifier]:
    """Register a verifier under `name`, with the keys that its `answer` must and may have."""

    def register(check: Verifier) -> Verifier:
        _REGISTRY[name] = _Entry(check, frozenset(required), frozenset(optional))
        return check

    return register


def names() -> list[str]:
    """The verifiers that the package brings."""
    return sorted(_REGISTRY)


def validate(task: Task) -> None:
    """Check that a task's verifier exists and can use its answer, without running or importing anything foreign.

    Raises ConfigError for an unknown verifier, DataError for missing or unknown keys and values of a wrong kind.
    """
    _check_keys(task)
    if task.verifier == "python_tests":
        code_job(task, "")
    elif ":" not in task.verifier:
        _check(task, "?")  # each looks at the whole answer before it looks at the reply
        if task.answer.get("symbolic"):
            symbols.require()


def require(task: Task) -> None:
    """As `validate`, and the user's own verifier is loaded. Raises ConfigError where it cannot be."""
    validate(task)
    if ":" in task.verifier:
        _load(task)


def _check_keys(task: Task) -> None:
    if ":" in task.verifier:
        return
    entry = _REGISTRY.get(task.verifier)
    if entry is None:
        raise ConfigError(
            f"task {task.id!r}: unknown verifier {task.verifier!r}; known: {', '.join(names())}, "
            "or your own as module:function"
        )
    missing = sorted(entry.required - task.answer.keys())
    unknown = sorted(task.answer.keys() - entry.required - entry.optional)
    if missing or unknown:
        problem = f"misses {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        keys = ", ".join([*sorted(entry.required), *(f"{key} (optional)" for key in sorted(entry.optional))])
        raise DataError(f"task {task.id!r}: the answer for verifier {task.verifier!r} {problem}; it takes: {keys}")


def score(task: Task, reply: str) -> Score:
    """Score one reply. Raises ConfigError, DataError, or SandboxUnavailable where code cannot be run safely."""
    return score_many([(task, reply)], workers=1)[0]


def score_many(pairs: Sequence[tuple[Task, str]], *, workers: int = 2) -> list[Score]:
    """Score replies, in order. Code of `python_tests` tasks runs on `workers` sandboxed processes."""
    scores: list[Score | None] = [None] * len(pairs)
    jobs: list[sandbox.Job] = []
    places: list[int] = []
    symbolic: list[int] = []
    for place, (task, reply) in enumerate(pairs):
        _check_keys(task)
        if ":" in task.verifier:
            scores[place] = _users_own(task, reply)
        elif task.verifier == "python_tests":
            jobs.append(code_job(task, reply))
            places.append(place)
        else:
            found = scores[place] = _check(task, reply)
            if task.answer.get("symbolic") and not found.value:
                symbolic.append(place)
    if symbolic:
        asked = [(str(pairs[place][0].answer["value"]), pairs[place][1]) for place in symbolic]
        for place, (right, detail) in zip(symbolic, symbols.same_answers(asked), strict=True):
            scores[place] = Score(float(right), detail)
    for place, result in zip(places, sandbox.run_many(jobs, workers=workers) if jobs else [], strict=True):
        scores[place] = Score(1.0 if result.passed_all else 0.0, result.detail)
    return [one for one in scores if one is not None]


def _check(task: Task, reply: str) -> Score:
    try:
        return _REGISTRY[task.verifier].check(task.answer, reply)
    except (TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"task {task.id!r}: answer unusable for {task.verifier!r}: {problem}") from problem


def _load(task: Task) -> Callable[[Task, str], Any]:
    module_name, _, function_name = task.verifier.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ConfigError(f"task {task.id!r}: verifier {task.verifier!r} cannot be loaded: {problem}") from problem
    if not callable(function):
        raise ConfigError(f"task {task.id!r}: verifier {task.verifier!r} is no function")
    return cast(Callable[[Task, str], Any], function)


def _users_own(task: Task, reply: str) -> Score:
    outcome = _load(task)(task, reply)
    result = outcome if isinstance(outcome, Score) else None
    if result is None and isinstance(outcome, bool | int | float):
        result = Score(float(outcome))
    if result is None or not 0 <= result.value <= 1:
        raise ConfigError(
            f"verifier {task.verifier!r} returned {outcome!r}; it must return a Score or a number in [0, 1]"
        )
    return result


# ---- texts -----------------------------------------------------------------------------------------------------------


def _texts(answer: dict[str, Any], key: str) -> list[str]:
    texts = answer.get(key, [])
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{key} must be a list of texts, not {texts!r}")
    return list(texts)


def _needles(answer: dict[str, Any], key: str) -> list[str]:
    """Texts to look for, none of them empty."""
    texts = _texts(answer, key)
    if not all(map(simplify, texts)):
        raise ValueError(f"{key} holds an empty text to look for")
    return texts


@verifier("number", required=["value"])
def _number(answer: dict[str, Any], reply: str) -> Score:
    value = answer["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"value must be a finite number, not {value!r}")
    found = numbers(reply)
    if not found:
        return Score(0.0, "no number in the reply")
    gold = Fraction(value) if isinstance(value, int) else Fraction(repr(value))
    return Score(float(same_number(found[-1], gold)), f"last number {_shown(found[-1])}, expected {value}")


def _shown(number: Fraction) -> str:
    text = str(number) if number.denominator == 1 else f"{float(number):g}" if abs(number) < 1e300 else "huge"
    return text if len(text) <= 40 else text[:37] + "..."


@verifier("exact", required=["texts"], optional=["case"])
def _exact(answer: dict[str, Any], reply: str) -> Score:
    texts = _texts(answer, "texts")
    if not texts:
        raise ValueError("texts is empty")
    case = answer.get("case", False)
    if not isinstance(case, bool):
        raise ValueError("case must be true or false")
    given = trim(reply, case)
    return Score(float(given != "" and given in {trim(text, case) for text in texts}), f"expected {texts[0][:80]!r}")


@verifier("contains", optional=["all", "any", "none"])
def _contains(answer: dict[str, Any], reply: str) -> Score:
    every, some, none = (_needles(answer, key) for key in ("all", "any", "none"))
    if not every and not some:
        raise ValueError("needs texts under `all` or `any`")
    text = simplify(reply)
    missing = [needle for needle in every if not occurs(needle, text)]
    if missing:
        return Score(0.0, f"misses {missing[0][:80]!r}")
    if some and not any(occurs(needle, text) for needle in some):
        return Score(0.0, f"has none of {', '.join(some)[:120]}")
    present = [needle for needle in none if occurs(needle, text)]
    if present:
        return Score(0.0, f"has {present[0][:80]!r}, which it must not")
    return Score(1.0, "has what was asked")


@verifier("json", required=["value"])
def _json(answer: dict[str, Any], reply: str) -> Score:
    parsed = False
    for text in [reply.strip(), *fenced_blocks(reply)]:
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            continue
        parsed = True
        if _same_json(value, answer["value"]):
            return Score(1.0, "equal JSON")
    return Score(0.0, "other JSON than expected" if parsed else "no JSON")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _same_json(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    alike = type(one) is type(other) or {type(one), type(other)} == {int, float}
    return alike and bool(one == other)


@verifier("refusal", required=["refuse", "markers"])
def _refusal(answer: dict[str, Any], reply: str) -> Score:
    if not isinstance(answer["refuse"], bool):
        raise ValueError("refuse must be true or false")
    refused = _marked(answer, reply)
    if not reply.strip():
        return Score(0.0, "empty reply")
    said = "refused" if refused else "did not refuse"
    return Score(float(refused == answer["refuse"]), said)


@verifier("unknown", required=["markers"])
def _unknown(answer: dict[str, Any], reply: str) -> Score:
    admits = _marked(answer, reply)
    return Score(float(admits), "says that it does not know" if admits else "does not say that it does not know")


def _marked(answer: dict[str, Any], reply: str) -> bool:
    markers = _needles(answer, "markers")
    if not markers:
        raise ValueError("markers is empty")
    text = simplify(reply)
    return any(occurs(marker, text) for marker in markers)


@verifier("gsm8k", required=["value"], optional=["symbolic"])
@verifier("maths", required=["value"], optional=["symbolic"])
def _maths(answer: dict[str, Any], reply: str) -> Score:
    value = answer["value"]
    if not isinstance(answer.get("symbolic", False), bool):
        raise ValueError("symbolic must be true or false")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError(f"value must be a text or a number, not {value!r}")
    right, detail = check_answer(str(value), reply)
    return Score(float(right), detail)


# ---- form ------------------------------------------------------------------------------------------------------------

MOST_FOR_FORM = 0.1  # of a reward: more, and a model learns the form alone (SPEC J.7)


@verifier("format", optional=["boxed", "json", "tags", "credit"])
def _format(answer: dict[str, Any], reply: str) -> Score:
    """`boxed: true`: a \\boxed{} that is closed; `json: true`: the reply is JSON; `tags: [think, answer]`: the reply is
    these elements and nothing else, each once, in this order, none empty."""
    credit = answer.get("credit", MOST_FOR_FORM)
    if isinstance(credit, bool) or not isinstance(credit, int | float) or not 0 < credit <= MOST_FOR_FORM:
        raise ValueError(f"credit must be a number above 0 and at most {MOST_FOR_FORM}: form alone is no answer")
    asked = [key for key in ("boxed", "json", "tags") if answer.get(key)]
    if len(asked) != 1:
        raise ValueError("needs one of boxed: true, json: true, tags: [...]")
    if asked == ["boxed"]:
        right = last_boxed(reply) is not None
    elif asked == ["json"]:
        right = _is_json(reply)
    else:
        right = _has_tags(_texts(answer, "tags"), reply)
    return Score(float(credit) if right else 0.0, f"{asked[0]}: {'as asked' if right else 'not as asked'}")


def _is_json(reply: str) -> bool:
    try:
        json.loads(reply.strip(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _has_tags(tags: Sequence[str], reply: str) -> bool:
    rest = reply.strip()
    for tag in tags:
        head, opening, rest = rest.partition(f"<{tag}>")
        inside, closing, rest = rest.partition(f"</{tag}>")
        if head.strip() or not opening or not closing or not inside.strip():
            return False
    return not rest.strip()


@verifier("instructions", required=["instructions", "kwargs"], optional=["loose", "partial"])
def _instructions(answer: dict[str, Any], reply: str) -> Score:
    """1 where all are followed; with `partial` the share of them. `loose` forgives introductions and bold print."""
    names, values = _texts(answer, "instructions"), answer["kwargs"]
    if not names or not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
        raise ValueError("instructions must be a list of names, and kwargs a list with an object for each")
    strict, loose = (instructions.follow(names, values, reply, loose=kind) for kind in (False, True))
    found = loose if answer.get("loose") else strict
    missed = [name for name, good in zip(names, found, strict=True) if not good]
    detail = f"{sum(strict)} of {len(names)} instructions, loosely {sum(loose)}" + (
        f"; not {missed[0]}" if missed else ""
    )
    return Score(sum(found) / len(found) if answer.get("partial") else float(not missed), detail)


# ---- code ------------------------------------------------------------------------------------------------------------


def fenced_blocks(reply: str) -> list[str]:
    """Contents of the Markdown code fences of a reply; one that is never closed runs to the end."""
    return [match.group(1).strip("\n") for match in re.finditer(r"```[^\n`]*\n(.*?)(?:```|\Z)", reply, re.DOTALL)]


def code_of(reply: str) -> str:
    """The code of a reply: its fenced blocks joined, else the whole reply."""
    blocks = fenced_blocks(reply)
    return "\n\n".join(blocks) if blocks else reply


def code_job(task: Task, reply: str) -> sandbox.Job:
    """The sandbox job that decides a `python_tests` task."""
    entry, tests = task.answer["entry"], task.answer["tests"]
    if not isinstance(entry, str) or not entry.isidentifier() or not isinstance(tests, str) or not tests.strip():
        raise DataError(f"task {task.id!r}: entry must be a Python name and tests Python text")
    return sandbox.Job(code=code_of(reply), entry=entry, tests=tests)


@verifier("python_tests", required=["entry", "tests"])
def _python_tests(answer: dict[str, Any], reply: str) -> Score:
    raise AssertionError("run by score_many, in batches")
