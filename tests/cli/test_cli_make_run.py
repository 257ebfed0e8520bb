"""`make quickstart`: a model of one's own gets a folder of its own, and TORCH_INDEX counts whenever it is given."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cli_make import make_tree

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
GIVEN = {"MAKEFLAGS", "MAKELEVEL", "NAME", "PAGES", "RUN", "TORCH_INDEX"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The Makefile beside an environment that is up to date; its programs only say how they were called."""
    make_tree(tmp_path, {name: f'#!/bin/bash\necho {name} "$@"\n' for name in ("python", "fledge")})
    stamp = tmp_path / ".venv/.stamp"
    older = stamp.stat().st_mtime - 10  # newer than what it depends on, and not of the same tick as what comes next
    for place in (tmp_path / "pyproject.toml", tmp_path / "constraints.txt"):
        os.utime(place, (older - 10, older - 10))
    os.utime(stamp, (older, older))
    return tmp_path


def make(tree: Path, *arguments: str) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if key not in GIVEN}
    done = subprocess.run(
        ["make", "--no-print-directory", "quickstart", *arguments],
        cwd=tree, capture_output=True, text=True, env=environment, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((), None),
        (("NAME=小雀",), "mine"),
        (("PAGES=/p",), "mine"),
        (("NAME=小雀", "PAGES=/p", "RUN=sparrow"), "sparrow"),
        (("RUN=other",), "other"),
    ],
)
def test_the_run_is_named_after_what_is_given(tree: Path, arguments: tuple[str, ...], name: str | None) -> None:
    (line,) = make(tree, *arguments)
    assert line.startswith("fledge run fledgling")
    if name is None:
        assert "--name" not in line
    else:
        assert f"--name {name} " in line + " "


def test_an_index_takes_effect_in_an_environment_that_is_there(tree: Path) -> None:
    def installed(*arguments: str) -> list[str]:
        return [line for line in make(tree, *arguments) if "pip" in line]

    assert installed() == []
    first = installed("TORCH_INDEX=file:///a b")
    assert any("--index-url file:///a b" in line and "--force-reinstall" in line for line in first)
    assert not any("constraints" in line for line in first)
    assert installed("TORCH_INDEX=file:///a b") == []
    assert installed() == []
    assert any("--index-url file:///c" in line for line in installed("TORCH_INDEX=file:///c"))
    time.sleep(0.1)  # file systems count time in steps
    (tree / "pyproject.toml").touch()
    later = installed()  # what was chosen stays, and is not fetched anew
    assert any("--index-url file:///c torch" in line for line in later)
    assert not any("--force-reinstall" in line for line in later)
