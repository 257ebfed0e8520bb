"""The Makefile beside an environment that is up to date, so that make only calls what stands there."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_tree(folder: Path, programs: dict[str, str]) -> Path:
    """``programs``: texts of the environment's programs, by name."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder / name)
    place = folder / ".venv/bin"
    place.mkdir(parents=True, exist_ok=True)
    for name, text in programs.items():
        (place / name).write_text(text, encoding="utf-8")
        (place / name).chmod(0o755)
    (folder / ".venv/.stamp").touch()
    return folder
