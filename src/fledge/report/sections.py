"""What the report says, as plain values for its template. A section whose stage has not run is None."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fledge.core.errors import FledgeError
from fledge.report import charts, graph
from fledge.report.collect import Artefact, Run, answers, evaluations, read_lines, read_object
from fledge.report.rewards import reward_model
from fledge.table import STAGES, TRAINING


def sections(run: Run) -> dict[str, Any]:
    """Everything that ``report.html`` shows."""
    from markupsafe import Markup

    return {
        "name": run.name,
        "asked": run.asked,
        "missing": list(run.missing),
        "damaged": list(run.damaged),
        "cards": _cards(run),
        "stages": _stages(run),
        "skills": _skills(run),
        "gates": [found for artefact in run.of_stage("gate") if (found := _gate(artefact)) is not None],
        "questions": _questions(run),
        "corpora": [found for artefact in run.of_stage("corpus") if (found := _corpus(artefact)) is not None],
        "tokenizers": [{"name": a.name, "metrics": a.metrics} for a in run.of_stage("tokenizer")],
        "training": [found for artefact in run.artefacts if (found := _training(artefact)) is not None],
        "reward_models": [found for artefact in run.of_stage("reward") if (found := reward_model(artefact))],
        "graph": Markup(graph.draw(run)),
        "outside": graph.outside(run),
        "machine": _machine(run),
    }


def _cards(run: Run) -> list[tuple[str, str, str]]:
    """(what, figure, note) at the top of the page; only what is known."""
    from fledge.report.run import duration, size

    cards = []
    models = [a for a in run.artefacts if a.stage in TRAINING and STAGES[a.stage].speaks]
    for artefact in models[-1:]:
        parameters = artefact.metrics.get("parameters")
        if parameters:
            cards.append(("model", size(parameters), f"parameters, {artefact.name} is the last stage"))
    pretrained = [a for a in models if a.stage == "pretrain" and a.metrics.get("tokens")]
    if pretrained:
        cards.append(("pretraining", size(pretrained[-1].metrics["tokens"]), "tokens seen"))
    for artefact in run.of_stage("corpus")[-1:]:
        kept, read = artefact.metrics.get("kept"), artefact.metrics.get("read")
        if kept is not None and read:
            cards.append(("corpus", f"{kept:,}", f"documents kept of {read:,} read"))
    seconds = sum(float(a.manifest.get("seconds") or 0) for a in run.artefacts)
    cards.append(("time", duration(seconds), f"in {len(run.artefacts)} stages"))
    hardware = run.artefacts[-1].manifest.get("hardware", {}) if run.artefacts else {}
    if hardware:
        note = f"{hardware.get('cpu', '')}, {hardware.get('memory_gib', '?')} GiB"
        cards.append(("machine", f"{hardware.get('cores', '?')} cores", note))
    return cards


def _stages(run: Run) -> list[dict[str, Any]]:
    total = max((float(a.manifest.get("seconds") or 0) for a in run.artefacts), default=0.0) or 1.0
    return [
        {
            "name": a.name,
            "stage": a.stage,
            "seconds": float(a.manifest.get("seconds") or 0),
            "share": float(a.manifest.get("seconds") or 0) / total,
            "seed": a.manifest.get("seed"),
            "finished": str(a.manifest.get("finished", ""))[:16].replace("T", " "),
            "code": _code(a.manifest.get("code", {})),
            "config": _yaml(a.manifest.get("config", {})),
            "metrics": _yaml({k: v for k, v in a.metrics.items() if k != "scores"}),
            "fingerprint": a.manifest.get("fingerprint", ""),
        }
        for a in run.artefacts
    ]


def _code(code: Mapping[str, Any]) -> str:
    commit = str(code.get("commit", ""))[:10]
    return f"{code.get('version', '')}{f' ({commit})' if commit else ''}{', tree changed' if code.get('dirty') else ''}"


def _skills(run: Run) -> dict[str, Any] | None:
    """Rows: skill and language; columns: evaluations; each cell with what it gained on the column before it."""
    from fledge.evaluate.compare import read_scores

    folders = evaluations(run)
    scores: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        try:
            scores[name] = read_scores(folder)
        except FledgeError:
            continue
    if not scores:
        return None
    names = list(scores)
    gains = _gains({name: folders[name] for name in names})
    keys = {(s, la) for one in scores.values() for s, cells in one["skills"].items() for la in cells}
    keys |= {(e["skill"], e["language"]) for one in scores.values() for e in one["skipped"]}
    order = sorted(keys, key=lambda key: (key[0], key[1] != "zh", key[1]))
    rows = []
    for skill, language in order:
        cells = []
        for name in names:
            entry = scores[name]["skills"].get(skill, {}).get(language)
            why = [e for e in scores[name]["skipped"] if (e["skill"], e["language"]) == (skill, language)]
            cells.append({"entry": entry, "why": why, "gain": gains.get((name, skill, language))})
        rows.append({"skill": skill, "language": language, "cells": cells})
    skipped = [{"name": n, **e} for n in names for e in scores[n]["skipped"]]
    items = {n: scores[n].get("items") for n in names}
    sandbox = {str(scores[n].get("sandbox", "")) for n in names}
    return {
        "names": names, "rows": rows, "skipped": skipped, "items": items, "sandbox": sorted(sandbox),
        "prompts": {n: scores[n].get("prompt", "") for n in names},
    }  # fmt: skip


def _gains(folders: Mapping[str, Path]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Paired differences between each evaluation and the one before it."""
    from fledge.evaluate.compare import compare

    result: dict[tuple[str, str, str], dict[str, Any]] = {}
    names = list(folders)
    for before, after in itertools.pairwise(names):
        try:
            found = compare(folders[before], folders[after])
        except (FledgeError, OSError, ValueError, KeyError):
            continue  # made on other items: there is no paired difference to show
        for skill, languages in found["skills"].items():
            for language, entry in languages.items():
                result[after, skill, language] = {
                    **entry,
                    "over": before,
                    "sure": entry["low"] > 0 or entry["high"] < 0,
                }
    return result


def _gate(artefact: Artefact) -> dict[str, Any] | None:
    """The rows of a gate: what a stage cost the skills that it must keep."""
    found = read_object(artefact.folder / "gate.json")
    return None if found is None else {"name": artefact.name, **found}


def _questions(run: Run) -> dict[str, Any] | None:
    names, rows = answers(run)
    if not rows:
        return None
    world = read_object(run.find("world.json")) or {}
    known = {q.get("prompt"): q for q in world.get("six_questions", []) if isinstance(q, dict)}
    for row in rows:
        hint = known.get(row["prompt"], {})
        row["expect"] = hint.get("expect", "")
        row["kind"] = row["kind"] or hint.get("name", "")
    rows.sort(key=lambda row: row["language"] != "zh")
    return {"names": names, "rows": rows}


def _corpus(artefact: Artefact) -> dict[str, Any] | None:
    funnel = read_object(artefact.folder / "funnel.json")
    if funnel is None:
        return None
    stages = funnel.get("stages", [])
    rules = [{**rule, "stage": stage["stage"]} for stage in stages for rule in stage["rules"]]
    rules.sort(key=lambda rule: -rule["dropped"])
    truth = read_object(artefact.folder / "truth.json")
    return {
        "name": artefact.name, "read": funnel.get("read"), "kept": funnel.get("kept"), "stages": stages, "rules": rules,
        "truth": truth, "metrics": artefact.metrics,
    }  # fmt: skip


def _training(artefact: Artefact) -> dict[str, Any] | None:
    from markupsafe import Markup

    rows = read_lines(artefact.folder / "metrics.jsonl")
    if not rows:
        return None
    drawn, left = charts.charts(rows)
    return {
        "name": artefact.name,
        "stage": artefact.stage,
        "steps": len(rows),
        "charts": [{"title": c.title, "last": c.last, "svg": Markup(c.svg)} for c in drawn],
        "left": left,
        "metrics": artefact.metrics,
    }


def _machine(run: Run) -> list[tuple[str, list[str]]]:
    """Facts, each with the different values that the stages recorded: one, where all ran on the same machine."""
    facts: dict[str, list[str]] = {}
    for artefact in run.artefacts:
        for group in ("hardware", "versions"):
            for key, value in (artefact.manifest.get(group) or {}).items():
                values = facts.setdefault(str(key).replace("_", " "), [])
                if str(value) not in values:
                    values.append(str(value))
    return list(facts.items())


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    if not value:
        return ""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    buffer = io.StringIO()
    yaml.dump(value, buffer)
    return buffer.getvalue()
