"""What a file says is shown as text: it neither acts on the terminal nor is read as markup."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fledge.cli import main
from fledge.commands.summary import print_scores

ESCAPE = "\x1b]0;owned\x07\x1b[31m"


def test_an_error_that_quotes_a_file_cannot_act_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps({"messages": [{"role": "user", "content": "q", f"key{ESCAPE}": 1}]}) + "\n", encoding="utf-8"
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["fledge", "records", f"sources=[{{path: {path}}}]", "kind=conversation", "--out", str(tmp_path / "out")],
    )
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert "fledge: " in said
    assert "owned" in said
    assert "\x1b" not in said
    assert "\x07" not in said


def test_scores_show_names_as_they_are(tmp_path: Path) -> None:
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 4}
    scores = {
        "skills": {"x[/b]": {"[red]en": cell}, f"y{ESCAPE}": {"zh": cell}},
        "skipped": [{"skill": "z", "language": "en", "n": 2, "reason": f"[bold]no{ESCAPE}"}],
    }
    (tmp_path / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    (tmp_path / "results.jsonl").write_text("")
    console = Console(file=io.StringIO(), width=120, highlight=False)
    print_scores({"[/i]mine": tmp_path}, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("x[/b]", "[red]en", "[/i]mine", "[bold]no"):
        assert text in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown
