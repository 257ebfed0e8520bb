"""A recipe: a chain of stages that run what is missing and skip what is done.

    name: fledgling
    seed: 0
    variables: {pages: ""}
    stages:
      world:  {stage: microworld, preset: laptop}
      corpus: {stage: corpus, inputs: ["@world/site", "python:stdlib", "$pages"]}

``@STAGE/sub`` is a path in the folder of another stage and makes it run before. ``$VARIABLE`` stands for a variable;
where the variable is empty, the key (or the item of the list) is left out. ``$VARIABLE/sub`` is a path below a folder
that the variable names, and must be given. ``@@`` and ``$$`` begin a text with the plain sign. The recipe's seed goes
to every stage that has a ``seed`` and does not set it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from fledge.core.config import Config, build, near, parse_override, read_yaml, with_overrides
from fledge.core.errors import ConfigError
from fledge.table import STAGES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_VARIABLE = re.compile(r"\$([A-Za-z][A-Za-z0-9_-]*)(?:/(.*))?")
_TOP_KEYS = ("name", "seed", "description", "variables", "stages")


@dataclass(frozen=True)
class Step:
    """One stage of a plan, with its configuration resolved."""

    name: str
    stage: str
    config: Config
    folder: Path
    needs: tuple[str, ...]

    @property
    def module(self) -> ModuleType:
        return stage_module(self.stage)


@dataclass(frozen=True)
class Plan:
    """A recipe, resolved: every stage in the order in which it runs."""

    name: str
    recipe: str
    seed: int
    folder: Path
    variables: Mapping[str, Any]
    overrides: tuple[str, ...]
    steps: tuple[Step, ...]

    def dependents(self, name: str) -> list[str]:
        """``name`` and all that is made from it, in order. Raises `ConfigError` for an unknown stage."""
        if name not in {step.name for step in self.steps}:
            raise ConfigError(f"there is no stage {name!r} in this recipe{near(name, [s.name for s in self.steps])}")
        found = {name}
        for step in self.steps:
            if found & set(step.needs):
                found.add(step.name)
        return [step.name for step in self.steps if step.name in found]


def shipped() -> list[str]:
    """Names of the recipes inside the package."""
    folder = resources.files("fledge.recipes")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def stage_module(stage: str) -> ModuleType:
    """The module of a stage. Raises `ConfigError` with the nearest name where there is none."""
    if stage not in STAGES:
        raise ConfigError(f"unknown stage type {stage!r}{near(stage, STAGES)}")
    return importlib.import_module(STAGES[stage].module)


def stage_config(stage: str, values: Mapping[str, Any], origin: str) -> Config:
    cls: type[Config] = stage_module(stage).Config
    return build(cls, values, origin)


def load_plan(recipe: str, overrides: Sequence[str] = (), out: Path = Path("runs"), name: str | None = None) -> Plan:
    """Read a recipe (a shipped name or a file), apply overrides, resolve and check every stage. Starts nothing.

    Overrides are ``STAGE.key=value``, ``VARIABLE=value``, ``seed=value``. Raises `ConfigError` naming stage and key.
    """
    path = _find(recipe)
    values = read_yaml(path)
    origin = f"recipe {recipe}"
    for key in values:
        if key not in _TOP_KEYS:
            raise ConfigError(f"{origin}: unknown key {key!r}{near(str(key), _TOP_KEYS)}")
    raw = values.get("stages")
    if not isinstance(raw, dict) or not raw:
        raise ConfigError(f"{origin}: 'stages' must be a mapping of stage names to their configuration")
    variables = values.get("variables") or {}
    if not isinstance(variables, dict):
        raise ConfigError(f"{origin}: 'variables' must be a mapping of names to default values")
    seed = values.get("seed", 0)
    variables, seed, inner = _sort_overrides(origin, overrides, variables, seed, list(raw))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"{origin}: seed: expected a whole number (got {seed!r})")
    raw = _checked_stages(origin, with_overrides(raw, inner))
    run_name = name or str(values.get("name", path.stem))
    if not _NAME.fullmatch(run_name.replace(".", "-")):
        raise ConfigError(f"{origin}: name: {run_name!r} is not a folder's name: use letters, digits, - and _")
    folder = Path(out).expanduser() / run_name
    steps = _resolve(origin, raw, variables, seed, folder)
    return Plan(run_name, recipe, seed, folder, variables, tuple(overrides), steps)


def _find(recipe: str) -> Path:
    if recipe in shipped():
        return Path(str(resources.files("fledge.recipes") / f"{recipe}.yaml"))
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    names = shipped()
    raise ConfigError(
        f"there is no recipe {recipe!r}: neither a file nor a shipped recipe ({', '.join(names)}){near(recipe, names)}"
    )


def _sort_overrides(
    origin: str, overrides: Iterable[str], variables: Mapping[str, Any], seed: Any, stages: Sequence[str]
) -> tuple[dict[str, Any], Any, list[str]]:
    """Overrides of variables and seed are applied; those of stages are returned, their stage checked."""
    known, inner = dict(variables), []
    for text in overrides:
        key, equals, value = text.partition("=")
        if equals and key in known:
            # A variable that is a text takes its value as it stands: a name may look like YAML.
            known[key] = value if isinstance(variables[key], str) else parse_override(text)[1]
        elif equals and key == "seed":
            seed = parse_override(text)[1]
        else:
            path, _ = parse_override(text)
            if path[0] not in stages:
                places = [*stages, *known, "seed"]
                raise ConfigError(
                    f"{origin}: override {text!r}: no stage or variable {path[0]!r}{near(path[0], places)}"
                )
            if len(path) == 1:
                raise ConfigError(f"{origin}: override {text!r}: {key!r} is a stage; write {key}.KEY=value")
            inner.append(text)
    return known, seed, inner


def _checked_stages(origin: str, raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for name, values in raw.items():
        where = f"{origin}, stage {name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: the name of a stage is letters, digits, - and _ (it names a folder)")
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: expected a mapping of keys to values")
        if "stage" not in values:
            raise ConfigError(f"{where}: 'stage' is missing: which of {', '.join(STAGES)}?")
        if values["stage"] not in STAGES:
            raise ConfigError(f"{where}: unknown stage type {values['stage']!r}{near(str(values['stage']), STAGES)}")
    return dict(raw)


def _resolve(
    origin: str, raw: Mapping[str, dict[str, Any]], variables: Mapping[str, Any], seed: int, folder: Path
) -> tuple[Step, ...]:
    values, needs = {}, {}
    for name, given in raw.items():
        resolver = _Resolver(f"{origin}, stage {name}", variables, list(raw), folder)
        values[name] = {key: v for key, v in resolver.mapping(given, "").items() if key != "stage"}
        needs[name] = tuple(dict.fromkeys(resolver.needs))
    steps = []
    for name in _order(origin, needs):
        stage = raw[name]["stage"]
        if "seed" in stage_module(stage).Config.model_fields:
            values[name].setdefault("seed", seed)
        config = stage_config(stage, values[name], f"{origin}, stage {name} ({stage})")
        steps.append(Step(name, stage, config, folder / name, needs[name]))
    return tuple(steps)


class _Resolver:
    """Puts paths and variables into the values of one stage, and notes which stages it needs."""

    def __init__(self, where: str, variables: Mapping[str, Any], stages: Sequence[str], folder: Path) -> None:
        self.where, self.variables, self.stages, self.folder = where, variables, stages, folder
        self.needs: list[str] = []

    def mapping(self, values: Mapping[str, Any], at: str) -> dict[str, Any]:
        pairs = ((key, self.value(value, f"{at}.{key}" if at else str(key))) for key, value in values.items())
        return {key: value for key, value in pairs if value is not _EMPTY}

    def value(self, value: Any, at: str) -> Any:
        if isinstance(value, dict):
            return self.mapping(value, at)
        if isinstance(value, list):
            items = (self.value(item, f"{at}.{i}") for i, item in enumerate(value))
            return [item for item in items if item is not _EMPTY]
        if not isinstance(value, str):
            return value
        if value.startswith(("@@", "$$")):
            return value[1:]
        if value.startswith("@"):
            return self._reference(value[1:], at)
        match = _VARIABLE.fullmatch(value)
        return self._variable(match[1], match[2], at) if match else value

    def _reference(self, text: str, at: str) -> str:
        name, _, inside = text.partition("/")
        if name not in self.stages:
            raise ConfigError(f"{self.where}: {at}: '@{text}' names no stage of this recipe{near(name, self.stages)}")
        self.needs.append(name)
        return str(self.folder / name / inside) if inside else str(self.folder / name)

    def _variable(self, name: str, inside: str | None, at: str) -> Any:
        if name not in self.variables:
            raise ConfigError(f"{self.where}: {at}: no variable {name!r}{near(name, self.variables)}")
        value = self.variables[name]
        empty = value is None or value == ""
        if inside is None:
            return _EMPTY if empty else value
        if empty:
            raise ConfigError(f"{self.where}: {at}: '${name}/{inside}' needs a folder: give {name}=PATH")
        return str(Path(str(value)).expanduser() / inside)


_EMPTY = object()


def _order(origin: str, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The recipe's own order as far as needs allow; a circle is named."""
    done: list[str] = []
    state: dict[str, int] = {}

    def visit(name: str, trail: list[str]) -> None:
        if state.get(name) == 2:
            return
        if state.get(name) == 1:
            circle = [*trail[trail.index(name) :], name]
            raise ConfigError(f"{origin}: the stages go in a circle: {' needs '.join(circle)}")
        state[name] = 1
        for other in needs[name]:
            visit(other, [*trail, name])
        state[name] = 2
        done.append(name)

    for name in needs:
        visit(name, [])
    return done
