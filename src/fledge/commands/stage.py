"""``fledge STAGE``: one stage, from a file of its own."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from fledge.core.artefact import is_finished, read_manifest
from fledge.core.bench import Bench
from fledge.core.config import Config, WithPresets, read_yaml, with_overrides
from fledge.core.errors import ConfigError
from fledge.core.machine import ranks
from fledge.core.progress import duration
from fledge.recipe import stage_config, stage_module
from fledge.table import STAGES, TRAINING


def run_stage(
    stage: str, config: str | None, overrides: list[str], out: Path | None, dry_run: bool, redo: bool
) -> None:
    run_built(stage, read_config(stage, config, overrides), out, dry_run, redo)


def read_config(stage: str, config: str | None, overrides: list[str]) -> Config:
    """CONFIG, a YAML file or the folder of an artefact that the stage has made, with overrides. It may be left out:
    then a first ``key=value`` stands in its place."""
    path: Path | None = None
    if config is not None:
        if "=" in config and not Path(config).exists():
            overrides = [config, *overrides]
        else:
            path = Path(config).expanduser()
    values = {} if path is None else read_values(stage, path)
    return stage_config(stage, with_overrides(values, overrides), str(path) if path else f"stage {stage}")


def read_values(stage: str, path: Path) -> dict[str, Any]:
    """Of a YAML file, or what the manifest of an artefact records."""
    if not path.is_dir():
        return read_yaml(path)
    manifest = read_manifest(path)
    if manifest.get("stage") != stage:
        raise ConfigError(f"{path}: was made by stage {manifest.get('stage')}, not {stage}; its keys are others")
    return dict(manifest["config"])


def run_built(stage: str, config: Config, out: Path | None, dry_run: bool, redo: bool) -> None:
    module = stage_module(stage)
    if not dry_run and out is None:
        raise ConfigError(f"fledge {stage}: give --out DIR, the folder that the artefact will be")
    if STAGES[stage].torch:  # a dry run measures, with the same switches
        from fledge.core.machine import set_switches

        set_switches()
    if dry_run:
        from fledge.commands.dry_run import print_stage
        from fledge.forecast import estimate_hook

        hook = estimate_hook(stage)
        print_stage(stage, config, dict(hook(config, Bench()) or {}) if hook else {})
        return
    if ranks() > 1 and stage not in TRAINING:
        raise ConfigError(f"fledge {stage}: runs as one process, not as {ranks()} ranks; only {', '.join(TRAINING)} do")
    assert out is not None
    out = out.expanduser()
    before = is_finished(out) and not redo
    try:
        module.run(config, out, redo=redo)
    except KeyboardInterrupt:
        typer.echo(f"\nstopped; {stage} goes on from its last snapshot with the same command:", err=True)
        typer.echo(f"  {command_line(drop=('--redo',))}", err=True)
        raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") != "0":
        return  # the first rank tells
    took = duration(read_manifest(out).get("seconds", 0))
    typer.echo(f"{out}: done before, nothing to do (it took {took})" if before else f"{out}: done in {took}")


def command_line(drop: tuple[str, ...] = (), drop_with_value: tuple[str, ...] = ()) -> str:
    """This command as it was typed, quoted for a shell, without what should not be typed a second time."""
    words, skip = [], False
    for word in sys.argv[1:]:
        if skip:
            skip = False
        elif word in drop_with_value:
            skip = True
        elif word not in drop and not word.startswith(tuple(f"{w}=" for w in drop_with_value) or ("\0",)):
            words.append(word)
    return shlex.join([program(), *words])


def program() -> str:
    path = Path(sys.argv[0])
    if path.name != "fledge":
        return "fledge"
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return "fledge"


def print_keys(stage: str) -> None:
    """Presets and every key of a stage's configuration."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{stage}[/]")
    cls: type[Config] = stage_module(stage).Config
    for name, preset in cls.presets.items() if issubclass(cls, WithPresets) else ():
        console.print(f"  preset [cyan]{escape(name)}[/]  {escape(preset.source)}")
    for key, kind, default, meaning in describe(cls):
        value = "required" if default is ... else f"= {default!r}"
        console.print(f"  [cyan]{key}[/]  [dim]{escape(kind)}[/] {escape(value)}")
        if meaning:
            console.print(f"      {escape(meaning)}")


def describe(cls: type[Config], prefix: str = "") -> list[tuple[str, str, Any, str]]:
    """(key, type, default or ``...``, meaning) of every field, nested ones with dots."""
    from typing import get_args

    from pydantic_core import PydanticUndefined

    rows = []
    for name, field in cls.model_fields.items():
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        nested = [a for a in inner if issubclass(a, Config)]
        if nested:
            for model in nested:
                rows += describe(model, f"{prefix}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        kind = getattr(field.annotation, "__name__", "") if not get_args(field.annotation) else str(field.annotation)
        rows.append(
            (
                prefix + name,
                kind.replace("typing.", ""),
                ... if default is PydanticUndefined else default,
                field.description or "",
            )
        )
    return rows
