"""Configuration: frozen pydantic models, YAML 1.2 files, dotted overrides.

An unknown key is refused with the nearest valid one, because a misspelt key that is silently ignored is a run
wasted. YAML is read as 1.2, where ``1e-4`` is a number and ``no`` and ``1:1`` are strings.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fledge.core.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    def plain(self) -> dict[str, Any]:
        """As JSON values: what manifests record and compare."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Preset:
    """A named set of values. ``source`` says where they are published, and which of them are our choice."""

    values: Mapping[str, Any]  # as in a YAML file, nested
    source: str


class WithPresets(Config):
    """A configuration whose values may begin from a preset of its class; keys that are given override."""

    presets: ClassVar[Mapping[str, Preset]] = {}

    preset: str | None = Field(default=None, description="named values to begin from; keys given here override them")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        name = given.get("preset", cls.model_fields["preset"].default)
        known = cls.presets.get(name) if isinstance(name, str) else None
        return given if known is None else merged(known.values, given)

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in cls.presets:
            raise ValueError(f"unknown preset{near(name, cls.presets)}")
        return name

    def preset_facts(self) -> dict[str, Any] | None:
        """Name and source of the preset, and the keys (with dots) whose values here are not its own."""
        if self.preset is None:
            return None
        preset = self.presets[self.preset]
        return {"name": self.preset, "source": preset.source, "overridden": _otherwise(preset.values, self.plain())}


C = TypeVar("C", bound=Config)


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` over ``defaults``, level by level; what is no mapping replaces."""
    result: dict[str, Any] = _copy(defaults)
    for key, value in given.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def near(word: str, names: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the nearest known one, or all of them."""
    known = [str(name) for name in names]
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; there are: {', '.join(known)}" if known else "; there are none"


def _otherwise(values: Mapping[str, Any], now: Any, at: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        here = now.get(key) if isinstance(now, Mapping) else None
        if isinstance(value, Mapping):
            found += _otherwise(value, here, f"{at}{key}.")
        elif here != value:
            found.append(f"{at}{key}")
    return found


def parse_yaml(text: str, origin: str = "<text>") -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    try:
        return yaml.load(text)
    except YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: the top level must be a mapping of keys to values")
    return value


def parse_override(text: str) -> tuple[list[str], Any]:
    """``a.b=value`` -> (["a", "b"], value), the value read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {text!r}: write it as key=value, with dots between levels")
    return key.split("."), parse_yaml(value, f"override {text!r}")


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of the nested mapping with dotted overrides applied."""
    result = _copy(values)
    for text in overrides:
        path, value = parse_override(text)
        place = result
        for key in path[:-1]:
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"override {text!r}: {key!r} holds {inner!r}, which has no keys below it")
            place = inner
        place[path[-1]] = value
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return value


def build(cls: type[C], values: Mapping[str, Any], origin: str = "configuration") -> C:
    """Validate; every problem is named with its key, and an unknown key with the nearest valid one."""
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}:\n" + "\n".join(_explain(cls, item) for item in error.errors())) from None


def _explain(cls: type[BaseModel], item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        return f"  {key}: unknown key{near(location[-1], sorted(_field_names(cls, location[:-1])))}"
    if item["type"] == "missing":
        return f"  {key}: is required"
    said = item["msg"].removeprefix("Value error, ")
    return f"  {key}: {said} (got {item['input']!r})" if key else f"  {said}"  # of several keys: it names them


def _field_names(cls: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Names of the fields at a nested place, as far as the annotations tell."""
    current: type[BaseModel] | None = cls
    for part in path:
        field = current.model_fields.get(part) if current is not None else None
        if field is None:
            continue  # the tag of a union or a list index
        found = [a for a in (field.annotation, *get_args(field.annotation)) if _is_model(a)]
        current = found[0] if found else None
    return list(current.model_fields) if current is not None else []


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
