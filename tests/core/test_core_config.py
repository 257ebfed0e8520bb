"""Configuration: YAML 1.2, overrides, errors that name the key and the nearest valid one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fledge.core.config import Config, build, read_yaml, with_overrides
from fledge.core.errors import ConfigError


def load_config(cls: type[Any], path: Path | None = None, overrides: Sequence[str] = ()) -> Any:
    """A file and overrides to a configuration, as the doors do it."""
    values = read_yaml(path) if path is not None else {}
    return build(cls, with_overrides(values, overrides), str(path))


class Inner(Config):
    lr: float = 0.1
    name: str = "adamw"


class Outer(Config):
    steps: int
    inner: Inner = Inner()
    maybe: Inner | None = None
    ratio: str = "x"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_means_what_it_says(tmp_path: Path) -> None:
    """1.2: ``1e-4`` is a number, ``no`` and ``1:1`` are texts."""
    config = load_config(Outer, write(tmp_path / "c.yaml", "steps: 3\ninner: {lr: 1e-4, name: no}\nratio: 1:1\n"))
    assert (config.inner.lr, config.inner.name, config.ratio) == (1e-4, "no", "1:1")


def test_overrides_reach_inside() -> None:
    config = load_config(Outer, None, ["steps=5", "inner.lr=1e-3", "maybe.name=muon"])
    assert config.steps == 5
    assert config.inner.lr == 1e-3
    assert config.maybe is not None
    assert config.maybe.name == "muon"
    assert with_overrides({"a": {"b": 1}}, ["a.c=2"]) == {"a": {"b": 1, "c": 2}}


def test_overrides_leave_the_original_alone() -> None:
    values = {"a": {"b": 1}}
    with_overrides(values, ["a.b=2"])
    assert values == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stepz=1"], r"stepz: unknown key; did you mean 'steps'"),
        (["steps=1", "inner.lrr=1"], r"inner\.lrr: unknown key; did you mean 'lr'"),
        (["steps=1", "maybe.nme=x"], r"maybe\.nme: unknown key; did you mean 'name'"),
        (["steps=soon"], r"steps: .*\(got 'soon'\)"),
        ([], r"steps: is required"),
        (["steps"], "write it as key=value"),
        (["steps=1", "steps.deep=1"], "has no keys below it"),
    ],
)
def test_errors_name_the_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(Outer, None, overrides)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(Outer, tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(Outer, write(tmp_path / "bad.yaml", "a: [1\n"))
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_config(Outer, write(tmp_path / "list.yaml", "- 1\n"))


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(steps=1).steps = 2  # type: ignore[misc]
