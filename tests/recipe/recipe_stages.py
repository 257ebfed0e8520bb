"""Three small stages for the tests of recipes: real artefacts, no learning."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from fledge.core.artefact import produce
from fledge.core.bench import Bench
from fledge.core.config import Config as BaseConfig
from fledge.core.config import Preset, WithPresets


class Inner(BaseConfig):
    factor: int = 1


class Config(WithPresets):
    presets: ClassVar[Mapping[str, Preset]] = {
        "long": Preset({"text": "long", "times": 3, "inner": {"factor": 5}}, "nobody published it")
    }

    text: str = "x"
    source: Path | None = None
    more: tuple[Path, ...] = ()
    words: tuple[str, ...] = ()
    times: int = Field(1, ge=0)
    inner: Inner = Inner()
    interrupt: Path | None = Field(None, exclude=True, description="stop as Ctrl-C does while this file exists")
    seed: int = 0



def run(config: Config, out: Path, redo: bool = False) -> None:
    inputs = {} if config.source is None else {"source": config.source}
    with produce(out, kind="text", stage="write", config=config, inputs=inputs, seed=config.seed, redo=redo) as work:
        if work.done:
            return
        begun = work.folder / ".begun"
        begun.touch()
        if config.interrupt is not None and config.interrupt.exists():
            raise KeyboardInterrupt
        text = config.text * config.times
        if config.source is not None:
            text += (config.source / "text.txt").read_text(encoding="utf-8")
        (work.folder / "text.txt").write_text(text, encoding="utf-8")


def estimate(config: Config, bench: Bench) -> dict[str, float]:
    before = bench.fact(config.source, "characters", 0) if config.source is not None else 0
    characters = len(config.text) * config.times + before
    rate = bench.once("rate", lambda: 2.0)
    return {"characters": characters, "seconds": characters / rate}


if __name__ == "__main__":
    sys.exit("a module of stages for tests")
