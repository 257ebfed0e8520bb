"""What lies in a run's folder, read once for the report and the summary; a part that is missing is None."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fledge.core.artefact import is_finished, read_manifest
from fledge.core.errors import ArtefactError

RUN_FILE = "run.json"


@dataclass(frozen=True)
class Artefact:
    """One finished stage of a run."""

    name: str
    folder: Path
    manifest: dict[str, Any]

    @property
    def stage(self) -> str:
        return str(self.manifest.get("stage", ""))

    @property
    def metrics(self) -> dict[str, Any]:
        found = self.manifest.get("metrics")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Run:
    """Artefacts in the recipe's order. ``missing`` are stages of the recipe that have not been made."""

    folder: Path
    asked: dict[str, Any]
    artefacts: tuple[Artefact, ...]
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return str(self.asked.get("name") or self.folder.resolve().name)

    def of_stage(self, *stages: str) -> list[Artefact]:
        return [artefact for artefact in self.artefacts if artefact.stage in stages]

    def find(self, pattern: str) -> Path | None:
        """The first file of this name in the run's artefacts."""
        for artefact in self.artefacts:
            if (artefact.folder / pattern).exists():
                return artefact.folder / pattern
        return None


def read_run(folder: Path) -> Run:
    """Raises `ArtefactError` where there is nothing of a run."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: there is no such folder")
    asked = read_object(folder / RUN_FILE) or {}
    order = [str(stage.get("name")) for stage in asked.get("stages", []) if isinstance(stage, dict)]
    found, damaged = [], []
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not place.name.startswith(".") and is_finished(place):
            try:
                found.append(Artefact(place.name, place, read_manifest(place)))
            except ArtefactError as error:
                damaged.append(str(error))
    if not found and not order:
        raise ArtefactError(
            f"{folder}: holds no artefact, so it is not a run. A run is a folder such as runs/fledgling."
        )
    rank = {name: number for number, name in enumerate(order)}
    found.sort(key=lambda a: (rank.get(a.name, len(rank)), str(a.manifest.get("finished", "")), a.name))
    missing = tuple(name for name in order if name not in {a.name for a in found})
    return Run(folder, asked, tuple(found), missing, tuple(damaged))


def evaluations(run: Run) -> dict[str, Path]:
    """Evaluations by the name of what was evaluated: ``base-scores`` -> ``base``."""
    result = {}
    for artefact in run.of_stage("evaluate"):
        for ending in ("-scores", "-eval", "-evaluate", "-evaluation"):
            if artefact.name.endswith(ending):
                result[artefact.name.removesuffix(ending)] = artefact.folder
                break
        else:
            result[artefact.name] = artefact.folder
    return result


def read_object(path: Path | None) -> dict[str, Any] | None:
    """A JSON object, or None where the file is missing, damaged or something else."""
    value = read_json(path)
    return value if isinstance(value, dict) else None


def read_json(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file; lines that are none (a torn last one) are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            rows.append(value)
    return rows


def answers(run: Run) -> tuple[list[str], list[dict[str, Any]]]:
    """The questions answered side by side: (names of models, rows of kind, language, prompt, replies by name)."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    names = []
    for name, folder in evaluations(run).items():
        found = read_object(folder / "answers.json")
        if found is None:
            continue
        names.append(name)
        for entry in found.get("answers", []):
            key = (str(entry.get("language")), str(entry.get("prompt")))
            row = rows.setdefault(key, {**{k: entry.get(k, "") for k in ("kind", "language", "prompt")}, "replies": {}})
            row["replies"][name] = entry.get("reply", "") if "skipped" not in entry else f"({entry['skipped']})"
    return names, list(rows.values())
