"""The reward of the GRPO rows, for both sides: how many different characters an answer has, over 50."""

from __future__ import annotations

from typing import Any


def of_text(text: str) -> float:
    return len(set(text)) / 50


def score(task: Any, reply: str) -> float:
    """As fledge's verifiers call it."""
    return of_text(reply)


def of_completions(completions: list[str], **_: Any) -> list[float | None]:
    """As TRL calls it."""
    return [of_text(text) for text in completions]
