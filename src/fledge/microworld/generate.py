"""The stage `microworld`: writes the site, its truth, instructions, preferences, tasks, tests and the world's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fledge.core import artefact
from fledge.core.progress import progress
from fledge.core.readers import write_jsonl
from fledge.microworld import card, chat, preferences, site, tasks
from fledge.microworld.config import Config, presets
from fledge.microworld.crawl import stream
from fledge.microworld.estimate import estimate
from fledge.microworld.skills.base import Item
from fledge.microworld.world import World

__all__ = ["Config", "estimate", "generate", "presets", "run"]


def generate(config: Config, folder: Path) -> dict[str, Any]:
    """Writes everything into `folder` and returns counts. The same configuration gives the same bytes.

    Files: ``site/*.warc.gz``, ``truth.jsonl``, ``sft.jsonl`` and, of it, ``replay.jsonl`` (`Conversation`),
    ``preferences.jsonl`` (`Preference`), ``tasks.jsonl``, ``test.jsonl`` (`Task`), ``world.json``. Raises `DataError`
    where more tests are asked for than there are different questions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = World(config)
    items = tasks.test_items(world, config.tests_per_skill)
    crawled = stream.write(world, items, folder) if config.defects == "all" else None
    with progress("microworld", 6, unit="files") as bar:
        tests = write_jsonl(folder / "test.jsonl", tasks.write_tests(items))
        bar.advance(1, note="pages")
        metrics = crawled or _site(world, items, folder)
        bar.advance(2, note="conversations")
        conversations = chat.write_conversations(world, config.sft_conversations)
        write_jsonl(folder / "sft.jsonl", conversations)
        # For later stages to repeat: all but who the assistant is, which they change; facts, which go first, thrice
        kept = [c for c in conversations if c.meta["skill"] != "identity"]
        facts = [c for c in kept if c.meta["skill"] in ("recall", "about")]
        write_jsonl(folder / "replay.jsonl", [*kept, *facts, *facts])
        metrics["sft_tokens_estimated"] = round(sum(_tokens(m.content) + 5 for c in conversations for m in c.messages))
        bar.advance(1, note="preferences and tasks")
        pairs = write_jsonl(folder / "preferences.jsonl", preferences.write_preferences(world, config.preference_pairs))
        rl = write_jsonl(folder / "tasks.jsonl", tasks.write_rl_tasks(world, config.rl_tasks))
        bar.advance(1)
        text = json.dumps(card.describe(world), ensure_ascii=False, indent=1)
        (folder / "world.json").write_text(text + "\n", encoding="utf-8")
        bar.advance(1, note="")
    return metrics | {
        "facts": len(world.facts), "sft": len(conversations), "preferences": pairs, "tasks": rl, "tests": tests,
    }  # fmt: skip


def _site(world: World, items: list[Item], folder: Path) -> dict[str, Any]:
    """The site that models are raised on, with its truth."""
    made = site.make_pages(world, items)
    write_jsonl(folder / "truth.jsonl", (site.truth(page) for page in made))
    return site.write(world, made, folder)


def _tokens(text: str) -> float:
    wide = sum(ord(c) > 0x2E80 for c in text)
    return wide / 1.6 + (len(text) - wide) / 3.5


def run(config: Config, out: Path, redo: bool = False) -> None:
    """The stage: an artefact of kind ``microworld`` at `out`."""
    with artefact.produce(
        Path(out), kind="microworld", stage="microworld", config=config, seed=config.seed, redo=redo
    ) as work:
        if work.done:
            return
        work.metrics.update(generate(config, work.folder))
