"""``fledge run``: a recipe from the first missing stage to the report."""

from __future__ import annotations

from pathlib import Path

import typer

from fledge.commands.stage import command_line
from fledge.core.progress import duration
from fledge.execute import Interrupted, execute, pending
from fledge.forecast import forecast, seconds_by_stage
from fledge.recipe import Plan, load_plan
from fledge.table import STAGES


def run_recipe(recipe: str, overrides: list[str], out: Path, name: str | None, dry_run: bool, redo: str | None) -> None:
    plan = load_plan(recipe, overrides, out, name)
    if redo is not None:
        plan.dependents(redo)  # an unknown stage is told before anything is done
    if any(STAGES[step.stage].torch for step in plan.steps):
        from fledge.core.machine import set_switches

        set_switches()
    if dry_run:
        from fledge.commands.dry_run import print_forecast

        print_forecast(plan, forecast(plan, redo=redo, say=_say))
        return
    expected = _expected(plan, redo) if redo is not None or pending(plan) else {}
    try:
        outcome = execute(plan, redo=redo, expected=expected, say=_say)
    except Interrupted as stop:
        _say(f"\nstopped in stage {stop.number} of {stop.total} ({stop.step.name}). What is done is kept; go on with")
        _say(f"  {command_line(drop_with_value=('--redo',))}")
        raise typer.Exit(130) from None
    from fledge.commands.summary import print_summary

    if not outcome.ran:
        _say(f"{plan.name}: all {len(plan.steps)} stages are done: nothing to do.")
    else:
        _say(f"{plan.name}: {len(outcome.ran)} stages in {duration(outcome.seconds)}")
    print_summary(plan, outcome)


def _expected(plan: Plan, redo: str | None) -> dict[str, float]:
    """Seconds by stage. Without an estimate a run is only without its time left, so a failure here is no failure."""
    try:
        return seconds_by_stage(forecast(plan, redo=redo))
    except Exception as error:
        _say(f"the time that this will take cannot be estimated: {error}")
        return {}


def _say(line: str) -> None:
    typer.echo(line, err=True)
