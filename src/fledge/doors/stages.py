"""A door for every stage of the table that has none of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from fledge.doors.options import ALONE, DryRun, Keys, Out, Overrides, Redo
from fledge.table import STAGES

BY_HAND = ("corpus", "train-classifier", "evaluate")  # these have doors of their own


def add_stages(app: typer.Typer) -> None:
    for stage in STAGES:
        if stage not in BY_HAND:
            _add_stage(app, stage)


def _add_stage(app: typer.Typer, stage: str) -> None:
    def command(
        config: Annotated[
            str | None, typer.Argument(metavar="[CONFIG]", help="YAML file; the defaults if not given.")
        ] = None,
        overrides: Overrides = None,
        out: Out = None,
        dry_run: DryRun = False,
        redo: Redo = False,
        keys: Keys = False,
    ) -> None:
        from fledge.commands.stage import print_keys, run_stage

        if keys:
            print_keys(stage)
        else:
            run_stage(stage, config, overrides or [], out, dry_run, redo)

    command.__doc__ = (
        f"{STAGES[stage].summary}\n\n    Examples:\n\n        fledge {stage} {stage}.yaml --out runs/mine/{stage}\n\n"
        f"        fledge {stage} --keys\n    "
    )
    app.command(name=stage, rich_help_panel=ALONE)(command)
