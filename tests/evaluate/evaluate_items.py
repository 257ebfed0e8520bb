"""The dialogues that the small model of these tests has learnt, and the tasks that ask for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fledge.core.readers import write_jsonl
from fledge.core.records import Message, Task
from fledge.evaluate.stage import summarise

# question, language, reply that is learnt, verifier, answer, skill, wording, level, score that the reply deserves
ITEMS: list[tuple[str, str, str, str, dict[str, Any], str, str, str, float]] = [
    ("2+3?", "en", "2+3=5", "number", {"value": 5}, "sums", "seen", "1-digit", 1.0),
    ("4+4?", "en", "4+4=9", "number", {"value": 8}, "sums", "seen", "1-digit", 0.0),
    ("10+30?", "en", "10+30=40", "number", {"value": 40}, "sums", "held_out", "2-digit", 1.0),
    ("二加三？", "zh", "等于5。", "number", {"value": 5}, "sums", "seen", "1-digit", 1.0),
    ("你是谁？", "zh", "我叫小雀。", "contains", {"all": ["小雀"]}, "identity", "seen", "", 1.0),
    ("Who are you?", "en", "I am a cat.", "contains", {"all": ["Fledge"]}, "identity", "seen", "", 0.0),
    ("Write f: x+1", "en", "def f(x):\n    return x+1", "python_tests", {"entry": "f", "tests": "assert f(1) == 2"},
     "code", "seen", "", 1.0),
    ("Write f: x-1", "en", "def f(x):\n    return x", "python_tests", {"entry": "f", "tests": "assert f(1) == 0"},
     "code", "seen", "", 0.0),
]  # fmt: skip


def make_task(number: int) -> Task:
    question, language, _, verifier, answer, skill, wording, level, _ = ITEMS[number]
    meta = {"wording": wording} | ({"level": level} if level else {})
    return Task(
        id=f"t{number}", messages=(Message(role="user", content=question),), verifier=verifier, answer=answer,
        skill=skill, language=language, meta=meta,
    )  # fmt: skip


def evaluation(folder: Path, scores: dict[tuple[str, str], list[float]], start: int = 0, **more: Any) -> Path:
    """A folder as the stage writes it."""
    rows = [
        {
            "id": f"{skill}-{language}-{number}",
            "skill": skill,
            "language": language,
            "wording": "seen",
            "level": None,
            "prompt": [{"role": "user", "content": f"{skill} {number}"}],
            "reply": "r",
            "score": score,
            "detail": "",
            "tokens": 1,
            "finish": "stop",
        }
        for (skill, language), values in scores.items()
        for number, score in enumerate(values, start)
    ]
    folder.mkdir()
    write_jsonl(folder / "results.jsonl", rows)
    (folder / "scores.json").write_text(json.dumps(summarise(rows, [], 100, 0) | more))
    return folder
