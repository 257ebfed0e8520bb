"""What the report shows of a reward model: quality.json of the stage `reward`, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fledge.report import charts
from fledge.report.collect import Artefact, read_object


def reward_model(artefact: Artefact) -> dict[str, Any] | None:
    """Figures and drawings; None where nothing was measured."""
    from markupsafe import Markup

    found = read_object(artefact.folder / "quality.json")
    if not found:
        return None
    drawn = [{"title": title, "svg": Markup(svg)} for title, svg in _drawings(found)]
    return {"name": artefact.name, "quality": found, "charts": drawn}


def _drawings(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    result = []
    if bins := found.get("reliability"):
        line = _line(bins, "confidence", "right")
        result.append(("right by confidence (dashed: calibrated)", charts.curves([line], "reliability", diagonal=True)))
    for key, title in (("accuracy_by_margin", "the margin that was given"), ("accuracy_by_gap", "the rewards' gap")):
        if buckets := found.get(key):
            places = [{**row, "middle": (row["low"] + row["high"]) / 2} for row in buckets]
            result.append((f"accuracy by {title}", charts.curves([_line(places, "middle", "accuracy")], key)))
    if curve := found.get("best_of_n"):
        lines = [
            ([float(n) for n in curve[who]], [float(value) for value in curve[who].values()])
            for who in ("chosen", "oracle")
        ]
        result.append(("score of the best of n (thin: by the verifier)", charts.curves(lines, "best_of_n", log=True)))
    return result


def _line(rows: Sequence[Mapping[str, float]], x: str, y: str) -> tuple[list[float], list[float]]:
    return [row[x] for row in rows], [row[y] for row in rows]
