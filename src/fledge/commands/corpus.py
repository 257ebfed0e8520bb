"""``fledge corpus``: a corpus from any inputs, and questions to one that is made."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from fledge.commands.stage import print_keys, read_values, run_built
from fledge.core.artefact import MANIFEST, read_manifest
from fledge.core.config import Config, read_yaml, with_overrides
from fledge.core.errors import ConfigError
from fledge.recipe import stage_config, stage_module

_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.]*=")


def make(words: Sequence[str], out: Path | None, dry_run: bool, redo: bool, keys: bool) -> None:
    """The stage on the inputs that are named, and what became of them as one line of JSON at the end."""
    if keys:
        print_keys("corpus")
        return
    config = read_words(words)
    run_built("corpus", config, out, dry_run, redo)
    if out is not None and not dry_run:
        metrics = read_manifest(out.expanduser())["metrics"]
        typer.echo(json.dumps({name: metrics[name] for name in ("read", "kept", "dropped", "errors")}))


def read_words(words: Sequence[str]) -> Config:
    """Inputs, ``key=value``, and at most one configuration (a YAML file, or a corpus that has been made), in any
    order. Inputs that are named stand in place of the configuration's. What exists as a file is no ``key=value``."""
    overrides = [word for word in words if _ASSIGNMENT.match(word) and not Path(word).exists()]
    rest = [word for word in words if word not in overrides]
    given = [word for word in rest if _is_configuration(Path(word).expanduser())]
    inputs = [word for word in rest if word not in given]
    if len(given) > 1:
        raise ConfigError(f"fledge corpus: one configuration, please, not {len(given)}: {', '.join(given)}")
    values: dict[str, Any] = {}
    for word in given:
        values = read_values("corpus", Path(word).expanduser())
    if inputs:
        values["inputs"] = inputs
    if not values.get("inputs") and not any(word.startswith("inputs=") for word in overrides):
        raise ConfigError(
            "fledge corpus: name what to read: files, folders, globs or python:stdlib, as in "
            "`fledge corpus pages/ notes.jsonl --out my-corpus`"
        )
    return stage_config("corpus", with_overrides(values, overrides), given[0] if given else "fledge corpus")


def _is_configuration(path: Path) -> bool:
    """A YAML file whose keys are the stage's (others are read as text), or the folder of an artefact."""
    if path.is_dir():
        return (path / MANIFEST).exists() and read_manifest(path).get("stage") == "corpus"
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    try:
        values = read_yaml(path)
    except ConfigError:
        return True  # whose message says what is wrong with it
    return bool(values) and set(values) <= set(stage_module("corpus").Config.model_fields)


def why(corpus: Path, document: str) -> None:
    """What became of a document, and where it came from."""
    from fledge.commands.lineage import lineage

    lineage(corpus, document, None, None)
