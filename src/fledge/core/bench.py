"""What a stage's ``estimate`` is given: what is planned around it, and a place to measure things once.

A stage module may define ``estimate(config, bench) -> dict`` with any of ``parameters``, ``flops``, ``memory_bytes``,
``seconds`` and further facts for the stages after it (``documents``, ``tokens`` ...). Nothing may be written (but
compiled loops into the user's cache, which the run itself will want) and nothing downloaded; measuring is allowed for a
few seconds, through `Bench.once`, so that it is not done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fledge.core.config import Config

T = TypeVar("T")


@dataclass(frozen=True)
class Planned:
    """A stage of the recipe, as far as it is known before anything has run."""

    name: str
    stage: str
    config: Config
    folder: Path
    estimate: dict[str, Any]


@dataclass
class Bench:
    """``measure`` is False where only arithmetic is wanted; ``seconds`` is how long one measurement may take."""

    measure: bool = True
    seconds: float = 4.0
    planned: dict[str, Planned] = field(default_factory=dict)
    _known: dict[str, Any] = field(default_factory=dict)

    def at(self, path: Path | str) -> Planned | None:
        """The planned stage whose folder is, or holds, ``path``: where an input will come from."""
        place = Path(path)
        for planned in self.planned.values():
            if place == planned.folder or planned.folder in place.parents:
                return planned
        return None

    def fact(self, path: Path | str, key: str, default: Any = None) -> Any:
        """What the estimate of the stage at ``path`` said of ``key``."""
        planned = self.at(path)
        return default if planned is None else planned.estimate.get(key, default)

    def of_file(self, path: Path, key: str, default: Any = None) -> Any:
        """The same for a file that a stage will write: ``key`` of ``sft.jsonl`` is the fact ``sft_KEY``."""
        return self.fact(path, f"{path.stem}_{key}", default)

    def once(self, key: str, measurement: Callable[[], T]) -> T:
        """The result of a measurement, made the first time it is asked for."""
        if key not in self._known:
            self._known[key] = measurement()
        value: T = self._known[key]
        return value
