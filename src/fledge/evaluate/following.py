"""How well instructions are followed: the four numbers of IFEval (2311.07911, section 3), and each kind apart.

Prompt level: the share of prompts whose instructions are all followed. Instruction level: the share of instructions.
Strict: the reply as it is; loose: any of its eight variants (`reward.instructions`). Qwen2's report gives prompt level,
strict (2407.10671, section 5.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fledge.core.records import Task
from fledge.evaluate.metrics import estimate, share
from fledge.reward.instructions import follow

LEVELS = ("prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose")


def followed(task: Task, reply: str) -> dict[str, list[Any]]:
    """`{"names", "strict", "loose"}`: the instructions of a task and which of them a reply follows."""
    names, values = task.answer["instructions"], task.answer["kwargs"]
    return {
        "names": list(names),
        "strict": follow(names, values, reply),
        "loose": follow(names, values, reply, loose=True),
    }


def summarise(found: Sequence[dict[str, list[Any]]], resamples: int, seed: int) -> dict[str, Any]:
    """`{level: {mean, low, high, n}, "kinds": {kind: {n, strict, loose}}}` of what `followed` gave for each prompt.

    Intervals are drawn over prompts at both levels; `n` counts prompts or instructions.
    """
    result: dict[str, Any] = {}
    for how in ("strict", "loose"):
        whole = [float(all(one[how])) for one in found]
        result[f"prompt_{how}"] = estimate(whole, resamples, seed).plain()
        parts, wholes = [float(sum(one[how])) for one in found], [float(len(one[how])) for one in found]
        result[f"instruction_{how}"] = share(parts, wholes, resamples, seed).plain()
    kinds: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for one in found:
        for name, strict, loose in zip(one["names"], one["strict"], one["loose"], strict=True):
            kinds[name].append((strict, loose))
    result["kinds"] = {}
    for name, pairs in sorted(kinds.items()):
        strict, loose = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        result["kinds"][name] = {"n": len(pairs), "strict": strict, "loose": loose}
    return result
