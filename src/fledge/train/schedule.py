"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from fledge.core.config import Config


class ScheduleConfig(Config):
    """``warmup`` and ``decay`` are shares of all steps if below 1, else numbers of steps."""

    kind: Literal["cosine", "wsd", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.02, ge=0)
    decay: float = Field(default=0.2, gt=0, description="wsd: the part in which the rate falls, at the end")
    floor: float = Field(default=0.1, ge=0, le=1, description="the last rate, as a share of the peak")


def factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """Share of the peak rate at ``step`` (from 0) of ``steps``.

    Warm-up is linear and reaches the peak at step ``warmup``; cosine falls to ``floor`` (Qwen1: 10 %); wsd holds and
    then falls linearly (warm-up, stable, decay).
    """
    warmup = _steps(schedule.warmup, steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - 1 - warmup)
    done = min(1.0, done)
    floor = schedule.floor
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "linear":
        return 1 - (1 - floor) * done
    if schedule.kind == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    fall = _steps(schedule.decay, steps)
    begin = steps - fall
    return 1.0 if step < begin else 1 - (1 - floor) * (step - begin + 1) / fall


def steps_of(examples: int, epochs: float, batch: int) -> int:
    """Steps in which ``epochs`` passes over the examples are made, in batches of ``batch``: to the nearest step, but
    so many that from one epoch on every example is taken."""
    nearest, whole = round(examples * epochs / batch), math.ceil(examples / batch)
    return max(1, nearest, whole if epochs >= 1 else 0)


def _steps(value: float, steps: int) -> int:
    return round(value * steps) if value < 1 else round(value)
