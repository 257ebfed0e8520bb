"""``fledge evaluate``: score one model.

A run has evaluations of its own, asked for by its recipe. The door shows them where they answer what is asked, and
never writes where a recipe writes: what is asked otherwise gets a folder of its own beside the model.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fledge.commands.stage import run_built
from fledge.commands.summary import print_scores
from fledge.core.artefact import DRAFT, MANIFEST, fingerprint
from fledge.core.config import Config, with_overrides
from fledge.core.errors import ConfigError
from fledge.recipe import stage_config
from fledge.report.collect import RUN_FILE, read_object

_INPUTS = ("model", "tasks", "questions", "corpus")  # matched by content, not by where they lie


def evaluate(
    model: Path, tasks: Path | None, overrides: list[str], out: Path | None, dry_run: bool, redo: bool
) -> None:
    model = model.expanduser()
    given = {text.partition("=")[0] for text in overrides}
    values: dict[str, object] = {"model": str(model)}
    if tasks is not None:
        values["tasks"] = str(tasks.expanduser())
    elif "tasks" not in given:
        values["tasks"] = str(_tasks_of_run(model))
    config = stage_config("evaluate", with_overrides(values, overrides), "fledge evaluate")
    if dry_run:
        run_built("evaluate", config, out, dry_run, redo)
        return
    if out is not None:
        out = out.expanduser()
        run_built("evaluate", config, out, False, redo)
    else:
        out = _score_beside(model, config, redo, bare=tasks is None and not overrides)
    print_scores({model.name: out})


def _score_beside(model: Path, config: Config, redo: bool, bare: bool) -> Path:
    """The folder of the scores: a finished evaluation that answers what is asked, or a new one."""
    asked = config.plain()
    prints = {"model": fingerprint(model), "tasks": [fingerprint(path) for path in _files(asked["tasks"])]}
    if asked["questions"] is not None:
        prints["questions"] = fingerprint(Path(asked["questions"]))
    if asked["corpus"] is not None:
        prints["corpus"] = fingerprint(Path(asked["corpus"]))
    ours = _stages_of_run(model.parent)
    for folder in sorted((p.parent for p in model.parent.glob(f"*/{MANIFEST}")), key=lambda p: (p.name not in ours, p)):
        record = read_object(folder / MANIFEST) or {}
        if not _same_inputs(record, prints):
            continue
        other = _otherwise(record, asked)
        if redo and folder.name not in ours and not other and record["inputs"].keys() == prints.keys():
            run_built("evaluate", config, folder, False, redo=True)
            return folder
        if not redo and (not other or (bare and folder.name in ours)):
            _say_found(folder, other)
            return folder
    out = _free_place(model, asked, prints, ours)
    run_built("evaluate", config, out, False, redo=False)
    return out


def _say_found(folder: Path, other: Mapping[str, Any]) -> None:
    how = f" with {', '.join(f'{key}={json.dumps(value)}' for key, value in other.items())}" if other else ""
    typer.echo(f"{folder}: scored before{how}; nothing to do")
    if other:
        key = next(iter(other))
        typer.echo(f"  (to score otherwise, give a value, such as {key}=null, and it gets a folder of its own)")


def _free_place(model: Path, asked: dict[str, Any], prints: dict[str, Any], ours: set[str]) -> Path:
    """The first of MODEL-scores, MODEL-scores-2, ... that is free, or where just this was begun before."""
    number = 1
    while True:
        place = model.parent / f"{model.name}-scores{'' if number == 1 else f'-{number}'}"
        half = model.parent / f".{place.name}.partial"
        draft = read_object(half / DRAFT)
        begun = draft is not None and _same_inputs(draft, prints) and not _otherwise(draft, asked)
        same = begun and draft is not None and draft["inputs"].keys() == prints.keys()
        if place.name not in ours and not place.exists() and (same or not half.exists()):
            return place
        number += 1


def _same_inputs(record: Mapping[str, Any], prints: Mapping[str, Any]) -> bool:
    """Whether an evaluation saw this model, these tasks and, where they are asked for, these questions."""
    inputs = record.get("inputs")
    return record.get("stage") == "evaluate" and isinstance(inputs, dict) and inputs.items() >= prints.items()


def _otherwise(record: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an evaluation that differ from what is asked."""
    config = record.get("config", {})
    return {k: config.get(k) for k in asked if k not in _INPUTS and config.get(k) != asked[k]}


def _files(tasks: Any) -> list[Path]:
    return [Path(tasks)] if isinstance(tasks, str) else [Path(path) for path in tasks]


def _stages_of_run(folder: Path) -> set[str]:
    """Names of the folders that the run's recipe writes, made or not."""
    stages = (read_object(folder / RUN_FILE) or {}).get("stages", [])
    return {str(stage.get("name")) for stage in stages if isinstance(stage, dict)}


def _tasks_of_run(model: Path) -> Path:
    found = sorted(model.parent.glob("*/test.jsonl"))
    if not found:
        raise ConfigError(
            f"{model}: the run around this model has no test.jsonl; name the tasks:\n"
            f"  fledge evaluate {shlex.quote(str(model))} --tasks FILE"
        )
    return found[0]
