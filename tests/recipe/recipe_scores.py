"""A stage that stands for an evaluation: items with given scores."""

from __future__ import annotations

from pathlib import Path

from fledge.core.artefact import produce, write_json
from fledge.core.config import Config as BaseConfig
from fledge.core.readers import write_jsonl


class Config(BaseConfig):
    right: int = 40  # of 40 items


def run(config: Config, out: Path, redo: bool = False) -> None:
    with produce(out, kind="evaluation", stage="evaluate", config=config, redo=redo) as work:
        if work.done:
            return
        row = {
            "skill": "sums",
            "language": "en",
            "prompt": [],
            "reply": "",
            "detail": "",
            "tokens": 1,
            "finish": "stop",
        }
        scores = [float(number < config.right) for number in range(40)]
        write_jsonl(work.folder / "results.jsonl", [{**row, "id": str(i), "score": s} for i, s in enumerate(scores)])
        entry = {"mean": sum(scores) / 40, "low": 0.0, "high": 1.0, "n": 40}
        write_json(work.folder / "scores.json", {"items": 40, "skills": {"sums": {"en": entry}}, "skipped": []})
