"""The report of a run."""

from __future__ import annotations

from pathlib import Path

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write ``folder/report.html``; returns its path."""
    path = Path(folder) / REPORT
    path.write_text("<!doctype html><title>report</title>", encoding="utf-8")
    return path
