"""What the stage will write and how long it takes, before it runs: what the stages after it plan with."""

from __future__ import annotations

from typing import Any

from fledge.core.bench import Bench
from fledge.microworld.config import Config

# Measured on one core of a 2-core x86 machine.
_SECONDS_PER_PAGE, _SECONDS_PER_ROW = 6e-4, 1e-4
_START = 0.5
# Tokens of a record in the chat format, measured with a tokenizer of 4,096 ids.
_MEAN_TOKENS = {"sft": 45, "replay": 45, "preferences": 48, "tasks": 30}


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """``pages`` with the planted ones; rows and mean tokens of each file, named by the file."""
    rows = {"sft": config.sft_conversations, "preferences": config.preference_pairs, "tasks": config.rl_tasks}
    pages = round(config.pages * (1 + config.defect_rate))
    facts: dict[str, Any] = {f"{name}_rows": count for name, count in rows.items()}
    facts |= {f"{name}_mean_tokens": count for name, count in _MEAN_TOKENS.items()}
    seconds = _START + pages * _SECONDS_PER_PAGE + sum(rows.values()) * _SECONDS_PER_ROW
    return {"pages": pages, "seconds": seconds, **facts}
