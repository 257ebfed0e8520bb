"""Artefacts: whole or absent, skipped when they match, never overwritten when they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fledge.core.artefact import differences, fingerprint, produce, read_manifest
from fledge.core.config import Config
from fledge.core.errors import ArtefactError


class Settings(Config):
    size: int = 1


def make(out: Path, size: int = 1, data: Path | None = None, redo: bool = False) -> bool:
    """Returns whether it was made (not skipped)."""
    inputs = {"data": data} if data is not None else {}
    with produce(out, kind="k", stage="s", config=Settings(size=size), inputs=inputs, seed=7, redo=redo) as work:
        if work.done:
            return False
        (work.folder / "payload.txt").write_text(f"{size}")
        work.metrics["made"] = size
    return True


def test_made_once_then_skipped(tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert make(out)
    assert not make(out)
    manifest = read_manifest(out)
    assert manifest["config"] == {"size": 1}
    assert manifest["seed"] == 7
    assert manifest["metrics"] == {"made": 1}
    assert manifest["fingerprint"] == fingerprint(out)
    assert "torch" in manifest["versions"]
    assert not list(tmp_path.glob(".*partial"))


def test_another_configuration_is_refused_until_redo(tmp_path: Path) -> None:
    out = tmp_path / "a"
    make(out)
    with pytest.raises(ArtefactError, match=r"config\.size: was 1, is 2") as error:
        make(out, size=2)
    assert "--redo a" in str(error.value)
    assert (out / "payload.txt").read_text() == "1"
    assert make(out, size=2, redo=True)
    assert (out / "payload.txt").read_text() == "2"


def test_inputs_match_by_content(tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("one")
    out = tmp_path / "a"
    make(out, data=data)
    moved = tmp_path / "elsewhere.txt"
    moved.write_text("one")
    assert not make(out, data=moved)
    data.write_text("two")
    with pytest.raises(ArtefactError, match=r"inputs\.data: was"):
        make(out, data=data)
    with pytest.raises(ArtefactError, match="no such file"):
        make(tmp_path / "b", data=tmp_path / "missing")


def test_a_failure_leaves_nothing_at_the_place_and_keeps_the_half(tmp_path: Path) -> None:
    out = tmp_path / "a"

    def fail() -> None:
        with produce(out, kind="k", stage="s", config=Settings()) as work:
            (work.folder / "half.txt").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not out.exists()
    with produce(out, kind="k", stage="s", config=Settings()) as work:
        assert (work.folder / "half.txt").exists()
    assert out.exists()


def test_a_folder_without_manifest_is_not_taken_for_an_artefact(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ArtefactError, match="not a finished artefact"):
        make(tmp_path / "a")


def test_no_environment_in_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_FOR_TEST", "do-not-record-me")
    make(tmp_path / "a")
    assert "do-not-record-me" not in json.dumps(read_manifest(tmp_path / "a"))


def test_differences_name_the_leaf() -> None:
    found = differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}})
    assert found == ["a.c: was 2, is 3", "a.d: new, 4"]
