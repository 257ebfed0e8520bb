"""`make quickstart`: what the user gives arrives as it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_make import make_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The Makefile beside an environment that is up to date, whose `fledge` prints its arguments."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    return make_tree(tmp_path, {"fledge": '#!/bin/bash\nprintf "%s\\n" "$@"\n'})


def quickstart(tree: Path, *arguments: str, **variables: str) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL", "NAME"}}
    done = subprocess.run(
        ["make", "--no-print-directory", "quickstart", *arguments],
        cwd=tree, capture_output=True, text=True, env={**environment, **variables}, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_names_and_pages_are_quoted(tree: Path) -> None:
    assert quickstart(tree) == ["run", "fledgling", "--out", "runs"]
    name, pages = "小雀 \"x\" 'y' `id` \\ * $HOME", "/tmp/a b/$(date)"
    assert quickstart(tree, f"NAME={name}", f"PAGES={pages}") == [
        "run", "fledgling", f"assistant_name={name}", f"pages={pages}", "--name", "mine", "--out", "runs",
    ]  # fmt: skip
    assert quickstart(tree, NAME="the-host", PAGES="/p") == [
        "run", "fledgling", "pages=/p", "--name", "mine", "--out", "runs",
    ]  # fmt: skip
