"""What a plan will cost: parameters, operations, memory and time of every stage, before it runs.

The stages' own ``estimate(config, bench)`` are asked in order, each able to see what was said of those before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fledge.core.artefact import is_finished, read_manifest
from fledge.core.bench import Bench, Planned
from fledge.core.config import Config
from fledge.recipe import Plan, Step, stage_module

Hook = Callable[[Config, Bench], dict[str, Any] | None]


@dataclass(frozen=True)
class Forecast:
    """One stage. ``seconds`` is what is left to do: 0 where it is done; None where the stage cannot tell."""

    step: Step
    done: bool
    parameters: int | None
    flops: float | None
    memory_bytes: int | None
    seconds: float | None
    facts: dict[str, Any]


def estimate_hook(stage: str) -> Hook | None:
    """The stage's ``estimate(config, bench)``, where it has one. (A module may hold another function of that name.)"""
    found = getattr(stage_module(stage), "estimate", None)
    if found is None or list(inspect.signature(found).parameters)[1:2] != ["bench"]:
        return None
    hook: Hook = found
    return hook


def forecast(
    plan: Plan, *, measure: bool = True, redo: str | None = None, say: Callable[[str], None] = lambda line: None
) -> list[Forecast]:
    """Ask every stage. Nothing is written; with ``measure`` a few seconds are spent on timing real steps."""
    again = set(plan.dependents(redo)) if redo is not None else set()
    bench = Bench(measure=measure)
    result = []
    for step in plan.steps:
        done = is_finished(step.folder) and step.name not in again
        facts: dict[str, Any] = {}
        hook = estimate_hook(step.stage)
        if hook is not None:
            if measure and not done:
                say(f"estimating {step.name}")
            facts = dict(hook(step.config, bench) or {})
        bench.planned[step.name] = Planned(step.name, step.stage, step.config, step.folder, facts)
        seconds = 0.0 if done else facts.get("seconds")
        if done:
            facts = {**facts, "took": read_manifest(step.folder).get("seconds")}
        result.append(
            Forecast(step, done, facts.get("parameters"), facts.get("flops"), facts.get("memory_bytes"), seconds, facts)
        )
    return result


def seconds_by_stage(forecasts: list[Forecast]) -> dict[str, float]:
    """What `fledge.execute.execute` takes as ``expected``: the stages that could tell."""
    return {f.step.name: f.seconds for f in forecasts if f.seconds is not None and not f.done}
