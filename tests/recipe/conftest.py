from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fledge.table import STAGES, StageType


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a recipe file; the stage types `write` and `scores` of this folder are in the table."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(STAGES, "write", StageType("recipe_stages", "Write a text."))
    monkeypatch.setitem(STAGES, "scores", StageType("recipe_scores", "Stand for an evaluation."))
    for module in ("recipe_stages", "recipe_scores"):
        monkeypatch.delitem(sys.modules, module, raising=False)

    def write(text: str) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
