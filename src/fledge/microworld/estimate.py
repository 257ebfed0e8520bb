"""What the stage will write and how long it takes, before it runs: what the stages after it plan with."""

from __future__ import annotations

from typing import Any

from fledge.core.bench import Bench
from fledge.microworld.config import Config
from fledge.microworld.skills.table import LANGUAGES, SKILLS

# Measured on one core of a 2-core x86 machine.
_SECONDS_PER_PAGE, _SECONDS_PER_ROW = 6e-4, 1e-4
_START = 0.5
# Tokens of a record in the chat format, and of a model's answers, measured with a tokenizer of 4,096 ids.
_FACTS = {
    "sft_mean_tokens": 45, "replay_mean_tokens": 46, "preferences_mean_tokens": 48, "tasks_mean_tokens": 30,
    "tasks_answer_tokens": 43, "test_answer_tokens_chat": 16, "test_answer_tokens_plain": 34,
}  # fmt: skip


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """``pages`` with the planted ones; of each file, by its name, rows, mean tokens, groups of skill and language."""
    groups = len(SKILLS) * len(LANGUAGES)
    rows = {"sft": config.sft_conversations, "preferences": config.preference_pairs, "tasks": config.rl_tasks}
    pages = round(config.pages * (1 + config.defect_rate))
    facts: dict[str, Any] = {f"{name}_rows": count for name, count in rows.items()}
    facts |= {"test_rows": config.tests_per_skill * groups, "test_groups": groups, **_FACTS}
    seconds = _START + pages * _SECONDS_PER_PAGE + sum(rows.values()) * _SECONDS_PER_ROW
    return {"pages": pages, "seconds": seconds, **facts}
