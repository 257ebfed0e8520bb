"""``fledge train-classifier``: a classifier from sets of text that are named on the command line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from fledge.commands.stage import print_keys, read_values, run_built
from fledge.commands.text import plain
from fledge.core.config import Config, with_overrides
from fledge.core.errors import ConfigError
from fledge.recipe import stage_config, stage_module

STAGE = "train-classifier"
_SHOWN = 12  # telling n-grams of a label


def make(words: Sequence[str], out: Path | None, dry_run: bool, redo: bool, keys: bool) -> None:
    """Train, and show how good it is."""
    if keys:
        print_keys(STAGE)
        return
    run_built(STAGE, read_words(words), out, dry_run, redo)
    if out is not None and not dry_run:
        typer.echo(described(out.expanduser()))


def read_words(words: Sequence[str]) -> Config:
    """``LABEL=PATH``, ``key=value`` of the stage, and at most one configuration, in any order. A label that is named
    several times has all the paths."""
    known = stage_module(STAGE).Config.model_fields
    labels: dict[str, list[str]] = {}
    overrides: list[str] = []
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            if values:
                raise ConfigError(f"fledge {STAGE}: one configuration, please; what is {word!r}?")
            values = read_values(STAGE, Path(word).expanduser())
        elif name.partition(".")[0] in known:
            overrides.append(word)
        elif "." in name or not _may_be_paths(value):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"fledge {STAGE}: {word!r}: {name!r} is no key of the stage{hint}, and no label, because {value!r} is "
                "no file, folder or pattern that matches something"
            )
        else:
            labels.setdefault(name, []).append(value)
    if labels:
        values["labels"] = labels
    if not values.get("labels") and not any(word.startswith("labels") for word in overrides):
        raise ConfigError(
            f"fledge {STAGE}: name sets of text, two or more, as in `fledge {STAGE} good=wiki.jsonl bad=crawl/ --out "
            "my-classifier`"
        )
    return stage_config(STAGE, with_overrides(values, overrides), f"fledge {STAGE}")


def _may_be_paths(value: str) -> bool:
    from fledge.corpus.reading.inputs import discover

    try:
        discover([value], 1)
    except ConfigError:
        return False
    return True


def described(folder: Path) -> str:
    """What the report says, in lines."""
    from fledge.stages.classifier import WEAK

    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    texts = ", ".join(f"{count} {name}" for name, count in report["texts"].items())
    lines = [
        f"held out: {texts}",
        f"  accuracy {report['accuracy']:.3f} (each label alike; training {report['training_accuracy']:.3f}), "
        f"cross entropy {report['nats']:.3f} nats, calibration error {report['calibration_error']:.3f}",
    ]
    for script, part in report["by_script"].items():
        lines.append(f"  {script}: accuracy {part['accuracy']:.3f}")
    for name, area in report["auc"].items():
        lines.append(f"{name}: area under the curve {area:.3f}")
        for row in report["thresholds"][name]:
            if row["own_lost"] <= 0.1:
                lines.append(
                    f"  score >= {row['least']:.4f} loses {row['own_lost']:.1%} of its own, keeps "
                    f"{row['others_kept']:.1%} of the others"
                )
        words = "  ".join(repr(row["ngram"])[1:-1] for row in report["telling"][name][:_SHOWN])
        lines.append(plain(f"  speaks for it: {words}"))
    if min(report["auc"].values()) < WEAK:
        lines.append("The sets are hardly told apart: this classifier says little more than chance.")
    return "\n".join(lines)
