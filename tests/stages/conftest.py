"""The small world, made once a test process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stages_small import Small, easy_tasks, moved_model

from fledge.core.config import build
from fledge.microworld.config import Config as WorldConfig
from fledge.microworld.generate import run as make_world
from fledge.recipe import stage_module


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    root = tmp_path_factory.mktemp("small")
    make_world(
        WorldConfig(
            pages=60, people=4, places=4, tests_per_skill=2, sft_conversations=120, preference_pairs=30, rl_tasks=30
        ),
        root / "world",
    )
    result = Small(root)
    stages: dict[str, dict[str, Any]] = {
        "corpus": {"inputs": [result.at("world/site")], "decontaminate": [result.at("world/test.jsonl")]},
        "tokenizer": {
            "documents": result.at("corpus"), "extra": [result.at("world/sft.jsonl")], "vocab_size": 512,
        },
        "shards": {"documents": result.at("corpus"), "tokenizer": result.at("tokenizer"), "held_out": 0.2},
    }  # fmt: skip
    for name, values in stages.items():
        module = stage_module(name)
        module.run(build(module.Config, values), root / name)
    easy_tasks(root / "sums.jsonl")
    result.run("pretrain", root / "pretrain")
    moved_model(root / "pretrain", root / "moved")
    return result
