"""What an evaluation will have to do: what a dry run asks."""

from __future__ import annotations

from fledge.core.bench import Bench
from fledge.core.errors import FledgeError
from fledge.core.readers import open_text
from fledge.evaluate.stage import Config
from fledge.model.config import DecoderConfig
from fledge.model.hf import load_config


def items_of(config: Config, bench: Bench) -> int:
    """Number of tasks: of the files if they are there, else of the microworld that will write them."""
    total = 0
    for path in config.task_files:
        if path.exists():
            with open_text(path) as file:
                total += sum(1 for line in file if line.strip())
        elif (planned := bench.at(path)) is not None and planned.stage == "microworld":
            from fledge.microworld.skills.table import LANGUAGES, SKILLS

            total += int(getattr(planned.config, "tests_per_skill", 0)) * len(SKILLS) * len(LANGUAGES)
        else:
            total += int(bench.fact(path, f"{path.stem}_rows", 0))
    if config.limit is not None and total:
        from fledge.microworld.skills.table import LANGUAGES, SKILLS

        total = min(total, config.limit * len(SKILLS) * len(LANGUAGES))
    return total


def shape_of(config: Config, bench: Bench) -> DecoderConfig | None:
    """Shape of the model: as an earlier stage planned it, else as its folder says."""
    known = bench.fact(config.model, "shape")
    if known is not None:
        return DecoderConfig.model_validate(known)
    try:
        return load_config(config.model)
    except FledgeError:
        return None
