"""The report of a run: one HTML file, no request to anywhere, no script."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from fledge.report.collect import read_run
from fledge.report.sections import sections

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write ``folder/report.html`` from whatever stages are there; returns its path.

    Raises `fledge.core.errors.ArtefactError` where the folder holds nothing of a run.
    """
    folder = Path(folder).expanduser()
    return write_page(folder / REPORT, "report.html", sections(read_run(folder)))


def write_page(path: Path, template: str, values: dict[str, Any]) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(render(template, values), encoding="utf-8")
    os.replace(temporary, path)
    return path


def render(template: str, values: dict[str, Any]) -> str:
    """Everything is escaped, but what our own code drew: `Markup` values."""
    import jinja2

    own = resources.files("fledge.report")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: (own / name).read_text(encoding="utf-8")),
    )  # fmt: skip
    environment.filters |= {"percent": percent, "count": count, "duration": duration, "size": size}
    return environment.get_template(template).render(**values, css=(own / "report.css").read_text("utf-8"))


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}"


def count(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


def size(value: float | None) -> str:
    """``6543210`` -> ``6.54 M``."""
    if value is None:
        return "–"
    for unit, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {sign}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    from fledge.core.progress import duration as text

    return "–" if seconds is None else text(seconds)
