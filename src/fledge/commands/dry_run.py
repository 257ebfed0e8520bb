"""``--dry-run``: what would run, at which size, for how long."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from typing import Any

import typer

from fledge.core.config import Config, WithPresets
from fledge.core.progress import duration
from fledge.forecast import Forecast
from fledge.recipe import Plan


def print_forecast(plan: Plan, forecasts: list[Forecast]) -> None:
    """The resolved configuration of every stage, then one line a stage, then the sum."""
    for item in forecasts:
        typer.echo(f"# {item.step.name}: {item.step.stage} -> {item.step.folder}")
        _print_config(item.step.config)
    width = max(len(item.step.name) for item in forecasts)
    typer.echo(f"{'stage':<{width}}  {'type':<10}  {'parameters':>10}  {'FLOPs':>8}  {'memory':>8}  {'time':>8}")
    for item in forecasts:
        time = "done" if item.done else "?" if item.seconds is None else duration(item.seconds)
        typer.echo(
            f"{item.step.name:<{width}}  {item.step.stage:<10}  {count(item.parameters):>10}  "
            f"{_flops(item.flops):>8}  {memory(item.memory_bytes):>8}  {time:>8}"
        )
    unknown = [item.step.name for item in forecasts if item.seconds is None and not item.done]
    total = sum(item.seconds or 0.0 for item in forecasts)
    typer.echo(f"\nexpected: {duration(total)}" + (f", and what {', '.join(unknown)} will take" if unknown else ""))
    place = plan.folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    typer.echo(f"{plan.folder}: {free / 2**30:.1f} GiB free. Nothing was run.")


def print_stage(stage: str, config: Config, facts: Mapping[str, Any]) -> None:
    typer.echo(f"# {stage}")
    _print_config(config)
    if facts:
        seconds = facts.get("seconds")
        time = "?" if seconds is None else duration(seconds)
        typer.echo(
            f"parameters {count(facts.get('parameters'))}, FLOPs {_flops(facts.get('flops'))}, "
            f"memory {memory(facts.get('memory_bytes'))}, time {time}"
        )
    typer.echo("Nothing was run.")


def _print_config(config: Config) -> None:
    """Resolved; above it the preset that it began from, its source, and what overrides it."""
    if isinstance(config, WithPresets) and (preset := config.preset_facts()):
        typer.echo(f"# preset {preset['name']}: {preset['source']}")
        if preset["overridden"]:
            typer.echo(f"# overridden here: {', '.join(preset['overridden'])}")
    typer.echo(_yaml(config.plain()))


def count(value: int | None) -> str:
    """``6543210`` -> ``6.54M``."""
    if value is None:
        return "-"
    for size, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{sign}"
    return str(value)


def memory(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 2**30:.1f}GiB" if value >= 2**30 else f"{value / 2**20:.0f}MiB"


def _flops(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    buffer = io.StringIO()
    yaml.dump(value, buffer)
    return "\n".join(f"  {line}" for line in buffer.getvalue().splitlines()) + "\n"
