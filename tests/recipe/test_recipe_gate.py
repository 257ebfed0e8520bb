"""A gate in a recipe: it stops the chain, loses nothing, and lets it go on when told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fledge import cli
from fledge.core.artefact import is_finished
from fledge.core.errors import Halt
from fledge.execute import execute
from fledge.recipe import Plan, load_plan

CHAIN = """
name: chain
stages:
  before-scores: {stage: scores}
  after-scores: {stage: scores, right: 20}
  check: {stage: gate, before: "@before-scores", after: "@after-scores", must_keep: {sums: 0.02}}
  later: {stage: write, text: L}
"""


@pytest.fixture
def load(recipe: Callable[[str], str], tmp_path: Path) -> Callable[..., Plan]:
    return lambda *overrides: load_plan(recipe(CHAIN), overrides, tmp_path / "runs")


def test_the_chain_stops_with_a_report_and_goes_on_when_told(load: Callable[..., Plan]) -> None:
    plan, said = load(), []
    with pytest.raises(
        Halt, match=r"check: the stage before .*\n  sums: 100\.0% before, 50\.0% after.*\n.*check\.on_fall=warn"
    ):
        execute(plan, say=said.append)
    assert is_finished(plan.folder / "check")
    assert not (plan.folder / "later").exists()
    page = (plan.folder / "report.html").read_text(encoding="utf-8")
    assert "What the stages cost" in page
    assert ">fell<" in page
    assert any("report.html" in line for line in said)
    with pytest.raises(Halt):
        execute(load(), report=False)
    outcome = execute(load("check.on_fall=warn"), report=False)
    assert (outcome.ran, outcome.skipped) == (["later"], ["before-scores", "after-scores", "check"])


def test_the_command_ends_with_an_error(
    recipe: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fledge", "run", recipe(CHAIN), "--out", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "cost more than is tolerated" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "check.on_fall=warn"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    assert "check: kept 0, unclear 0, fell 1" in capsys.readouterr().out
