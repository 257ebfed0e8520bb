"""What an evaluation will have to do: what a dry run asks."""

from __future__ import annotations

from fledge.core.bench import Bench
from fledge.core.errors import FledgeError
from fledge.core.readers import read_rows
from fledge.evaluate.stage import Config
from fledge.model.config import DecoderConfig
from fledge.model.hf import load_config


def items_of(config: Config, bench: Bench) -> int:
    """Number of tasks: of the files if they are there, else as the stage that will write them planned."""
    total, groups = 0, 0
    for path in config.task_files:
        if path.exists():
            kinds = [(row.get("skill"), row.get("language")) for _, row in read_rows(path, "skip")]
            total, groups = total + len(kinds), groups + len(set(kinds))
        else:
            total += int(bench.of_file(path, "rows", 0))
            groups += int(bench.of_file(path, "groups", 1))
    return min(total, config.limit * groups) if config.limit is not None else total


def answer_tokens(config: Config, bench: Bench) -> int:
    """Mean tokens of a reply, where the stage that writes the tasks knows it; else as many as are allowed."""
    known = [bench.of_file(path, f"answer_tokens_{config.prompt}") for path in config.task_files]
    return min([config.max_new_tokens, *(int(count) for count in known if count is not None)])


def shape_of(config: Config, bench: Bench) -> DecoderConfig | None:
    """Shape of the model: as an earlier stage planned it, else as its folder says."""
    known = bench.fact(config.model, "shape")
    if known is not None:
        return DecoderConfig.model_validate(known)
    try:
        return load_config(config.model)
    except FledgeError:
        return None
