"""Running a plan: skipping, resuming, redoing, time left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fledge.core.artefact import read_manifest
from fledge.core.errors import ArtefactError, ConfigError
from fledge.execute import Interrupted, execute
from fledge.forecast import forecast, seconds_by_stage
from fledge.recipe import Plan, load_plan

CHAIN = """
name: chain
stages:
  a: {stage: write, text: A}
  b: {stage: write, text: B, source: "@a", times: 3}
  side: {stage: write, text: S}
"""

Recipe = Callable[[str], str]


@pytest.fixture
def load(recipe: Recipe, tmp_path: Path) -> Callable[..., Plan]:
    def plan(*overrides: str) -> Plan:
        return load_plan(recipe(CHAIN), overrides, tmp_path / "runs")

    return plan


def text(plan: Plan, name: str) -> str:
    return (plan.folder / name / "text.txt").read_text(encoding="utf-8")


def test_runs_what_is_missing_and_then_nothing(load: Callable[..., Plan]) -> None:
    plan, said = load(), []
    outcome = execute(plan, say=said.append, report=False)
    assert outcome.ran == ["a", "b", "side"]
    assert text(plan, "b") == "BBBA"
    assert any(line.startswith("[2/3] b") and "done in" in line for line in said)
    before = (plan.folder / "b/manifest.json").stat().st_mtime_ns
    again = execute(load(), say=said.append, report=False)
    assert (again.ran, again.skipped) == ([], ["a", "b", "side"])
    assert (plan.folder / "b/manifest.json").stat().st_mtime_ns == before
    asked = json.loads((plan.folder / "run.json").read_text(encoding="utf-8"))
    assert [stage["needs"] for stage in asked["stages"]] == [[], ["a"], []]


def test_a_moved_run_still_matches(load: Callable[..., Plan], recipe: Recipe, tmp_path: Path) -> None:
    execute(load(), report=False)
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    assert execute(load_plan(recipe(CHAIN), (), tmp_path / "elsewhere"), report=False).ran == []


def test_a_change_is_refused_until_redone(load: Callable[..., Plan]) -> None:
    execute(load(), report=False)
    with pytest.raises(ArtefactError, match=r"config.text: was 'A', is 'Z'[\s\S]*--redo a"):
        execute(load("a.text=Z"), report=False)
    outcome = execute(load("a.text=Z"), redo="a", report=False)
    assert outcome.ran == ["a", "b"], "what depends on it too, and nothing else"
    assert text(load(), "b") == "BBBZ"


def test_redo_leaves_alone_what_is_no_artefact(load: Callable[..., Plan]) -> None:
    plan = load()
    (plan.folder / "b").mkdir(parents=True)
    (plan.folder / "b/thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ArtefactError, match="is no artefact"):
        execute(plan, redo="b", report=False)
    assert (plan.folder / "b/thesis.txt").exists()
    with pytest.raises(ConfigError, match=r"no stage 'sid' .*did you mean 'side'"):
        execute(plan, redo="sid", report=False)


def test_interrupted_and_gone_on_with(load: Callable[..., Plan], tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    with pytest.raises(Interrupted) as stopped:
        execute(load(f"b.interrupt={stop}"), report=False)
    assert (stopped.value.number, stopped.value.total, stopped.value.step.name) == (2, 3, "b")
    stop.unlink()
    said: list[str] = []
    outcome = execute(load(), say=said.append, report=False)
    assert outcome.ran == ["b", "side"]
    assert any("goes on" in line for line in said if line.startswith("[2/3] b"))


def test_two_processes_do_not_share_a_run(load: Callable[..., Plan]) -> None:
    from fledge.execute import _only_one

    plan = load()
    plan.folder.mkdir(parents=True)
    with _only_one(plan.folder), pytest.raises(ConfigError, match="another process"):
        execute(plan, report=False)
    assert execute(plan, report=False).ran == ["a", "b", "side"]


def test_forecast_and_time_left(load: Callable[..., Plan]) -> None:
    plan = load()
    found = {item.step.name: item for item in forecast(plan)}
    assert found["b"].facts["characters"] == 4, "a stage sees what was said of those before it"
    assert seconds_by_stage(list(found.values())) == {"a": 0.5, "b": 2.0, "side": 0.5}
    assert not plan.folder.exists(), "nothing is written"
    said: list[str] = []
    execute(plan, expected={"a": 60, "b": 120, "side": 60}, say=said.append, report=False)
    assert "about 4:00 to go" in said[0]
    after_a = next(line for line in said if line.startswith("[2/3] b") and "starts" in line)
    # a took no time where a minute was expected: the pace is (0 + 60) / (60 + 60), of the 180 s that were expected
    assert re.search(r"about 2:00; 1:3\d left in all", after_a)
    assert [item.seconds for item in forecast(load())] == [0.0, 0.0, 0.0]
    assert [item.done for item in forecast(load(), redo="a")] == [False, False, True]


def test_manifest_names_where_inputs_lay(load: Callable[..., Plan]) -> None:
    plan = load()
    execute(plan, report=False)
    assert read_manifest(plan.folder / "b")["paths"] == {"source": str(plan.folder / "a")}
