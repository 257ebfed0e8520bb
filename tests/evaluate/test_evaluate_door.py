"""`fledge evaluate`: in a run, what the recipe has scored is shown and never written over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fledge.commands.evaluate import evaluate
from fledge.core.artefact import read_manifest, write_json
from fledge.core.errors import ArtefactError
from fledge.evaluate import stage


@pytest.fixture
def run(model: Path, tasks: Path, tmp_path: Path) -> Path:
    """A run's folder as a recipe leaves it: a world, a model, and its scores with questions and a limit."""
    folder = tmp_path / "run"
    (folder / "world").mkdir(parents=True)
    shutil.copy(tasks, folder / "world/test.jsonl")
    shutil.copytree(model, folder / "grpo")
    (folder / "world/world.json").write_text(json.dumps(["Who are you?"]), encoding="utf-8")
    config = stage.Config(
        model=folder / "grpo", tasks=folder / "world/test.jsonl", questions=folder / "world/world.json",
        limit=1, max_new_tokens=12,
    )  # fmt: skip
    stage.run(config, folder / "grpo-scores")
    write_json(folder / "run.json", {"name": "run", "stages": [{"name": "grpo"}, {"name": "grpo-scores"}]})
    return folder


def score(run: Path, *overrides: str, out: Path | None = None, redo: bool = False) -> None:
    evaluate(run / "grpo", None, list(overrides), out, False, redo)


def scores_of(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir() if "scores" in path.name)


def test_the_scores_of_the_recipe_are_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_manifest(run / "grpo-scores")
    score(run)
    said = capsys.readouterr().out
    assert "scored before with limit=1, max_new_tokens=12" in " ".join(said.split())
    assert "identity" in said
    assert scores_of(run) == ["grpo-scores"]
    assert read_manifest(run / "grpo-scores") == before


def test_what_is_asked_otherwise_gets_a_folder_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_manifest(run / "grpo-scores")
    options = ("limit=2", "max_new_tokens=12", "skills=[identity]")
    score(run, *options)
    assert scores_of(run) == ["grpo-scores", "grpo-scores-2"]
    made = read_manifest(run / "grpo-scores-2")
    capsys.readouterr()
    score(run, *options)
    assert "nothing to do" in capsys.readouterr().out
    assert read_manifest(run / "grpo-scores-2") == made
    score(run, "limit=1", "max_new_tokens=12", "skills=[identity]")
    assert scores_of(run) == ["grpo-scores", "grpo-scores-2", "grpo-scores-3"]
    score(run, *options, redo=True)
    assert scores_of(run) == ["grpo-scores", "grpo-scores-2", "grpo-scores-3"]
    assert read_manifest(run / "grpo-scores-2")["metrics"] != made["metrics"]  # the speed is measured again
    assert read_manifest(run / "grpo-scores") == before


def test_redo_never_takes_the_scores_of_the_recipe(run: Path) -> None:
    before = read_manifest(run / "grpo-scores")
    score(run, "limit=1", "max_new_tokens=12", redo=True)
    assert read_manifest(run / "grpo-scores") == before
    assert scores_of(run) == ["grpo-scores", "grpo-scores-2"]


def test_a_place_that_the_recipe_will_need_is_left_free(run: Path) -> None:
    shutil.rmtree(run / "grpo-scores")
    score(run, "max_new_tokens=12")
    assert scores_of(run) == ["grpo-scores-2"]


def test_another_model_is_scored_though_scores_lie_there(run: Path) -> None:
    (run / "grpo/note.txt").write_text("another content", encoding="utf-8")
    score(run, "max_new_tokens=12")
    assert scores_of(run) == ["grpo-scores", "grpo-scores-2"]


def test_hints_can_be_typed_at_this_door(run: Path) -> None:
    with pytest.raises(ArtefactError) as caught:
        score(run, "limit=3", out=run / "grpo-scores")
    assert "Make it again with --redo, or give another --out." in str(caught.value)
