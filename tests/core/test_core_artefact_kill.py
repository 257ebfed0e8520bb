"""Artefacts under kills: whenever it comes, nothing is lost and nothing is taken for what it is not."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from fledge.core.artefact import DRAFT, MANIFEST, fingerprint, is_finished, produce, read_manifest
from fledge.core.config import Config
from fledge.core.errors import ArtefactError

# What changes the disk; the interpreter announces each before it does it.
EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")


class Settings(Config):
    size: int = 1


def make(out: Path, size: int = 1) -> str:
    """How it went: "skipped", "new" or "resumed" from the snapshot that an earlier call wrote."""
    with produce(out, kind="k", stage="s", config=Settings(size=size)) as work:
        if work.done:
            return "skipped"
        snapshot = work.folder / "snapshots" / "step-1"
        resumed = (snapshot / "state").exists()
        if not resumed:
            snapshot.mkdir(parents=True, exist_ok=True)
            (snapshot / "state").write_text("learned")
        (work.folder / "cache").write_text("x")
        (work.folder / "payload.txt").write_text(f"{size}")
        work.transient |= {"snapshots", "cache"}
    return "resumed" if resumed else "new"


def make_and_be_killed(out: Path, moment: int) -> bool:
    """In a process of its own, killed at the given change of what lies beside ``out``. Whether it was."""
    child = os.fork()
    if child == 0:
        left = moment

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in EVENTS and str(arguments[0]).startswith(str(out.parent)):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(hook)
            make(out)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no git, which is slow and not what is tried here
    results = []
    for moment in range(200):
        out = tmp_path / f"{moment}" / "a"
        out.parent.mkdir()
        if not make_and_be_killed(out, moment):
            break
        partial = out.parent / ".a.partial"
        learned = (partial / "snapshots" / "step-1" / "state").exists() and (partial / DRAFT).exists()
        if is_finished(out) or (partial / "payload.txt").exists():
            with pytest.raises(ArtefactError, match=r"config\.size: was 1, is 2"):
                make(out, size=2)
        results.append(make(out))
        assert results[-1] in (
            ("skipped", "resumed") if learned or (partial / MANIFEST).exists() else ("new", "skipped")
        )
        assert sorted(p.name for p in out.iterdir()) == [MANIFEST, "payload.txt"]
        assert not partial.exists()
        assert read_manifest(out)["fingerprint"] == fingerprint(out)
    order = [key for i, key in enumerate(results) if i == 0 or results[i - 1] != key]
    assert order == ["new", "resumed", "skipped"], "work that was done once is not done again"


def test_a_hidden_folder_of_unknown_make_is_refused(tmp_path: Path) -> None:
    partial = tmp_path / ".a.partial"
    partial.mkdir()
    (partial / f".{DRAFT}.tmp").write_text("{")  # a kill while the draft was written: nothing was made yet
    (partial / "part-00000.arrow").write_text("of another tokenizer")
    with pytest.raises(ArtefactError, match=r"\.a\.partial: holds files but no draft\.json"):
        make(tmp_path / "a")
    assert (partial / "part-00000.arrow").exists()
    (partial / "part-00000.arrow").unlink()
    assert make(tmp_path / "a") == "new"


@pytest.mark.parametrize("content", ['{"name": "App", "icons": []}', "[1]", '"x"', "{", '{"kind": "k", "stage": "s"}'])
def test_another_programs_manifest_is_a_file_like_others(tmp_path: Path, content: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / MANIFEST).write_text(content)
    (tmp_path / "site" / "a.html").write_text("one")
    before = fingerprint(tmp_path / "site")
    (tmp_path / "site" / "a.html").write_text("two")
    after = fingerprint(tmp_path / "site")
    (tmp_path / "site" / MANIFEST).write_text(content + " ")
    assert len({before, after, fingerprint(tmp_path / "site")}) == 3


def test_a_list_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps([1]))
    with pytest.raises(ArtefactError, match="is not the manifest of an artefact"):
        read_manifest(tmp_path)
