"""The tables of docs/performance.md: what falls short stands out, what is by hand stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pair
import pytest
import write_docs

TEMPLATE = """Mine.
<!-- machine -->
<!-- end -->
<!-- rows -->
stale
<!-- end -->
By hand.
<!-- skipped -->
<!-- end -->
<!-- growth -->
<!-- end -->
"""


def record(job: str, peer: str, tuned: bool, ratio: float | None, mib: tuple[int, int] = (100, 400)) -> dict[str, Any]:
    machine = {"cpu": "A processor", "cores": 2, "memory_gib": 23.6, "bf16": "amx"}
    config: dict[str, Any] = {"machine": machine, "ours": {"versions": {"torch": "2.13.0"}}}
    if ratio is None:
        config["skipped"] = "there is no such interpreter"
    else:
        config |= {"ratios": [ratio], "rounds": 1}
    return {
        "job": job, "peer": peer, "tuned": tuned, "ours": 10.0, "theirs": None if ratio is None else 10.0 / ratio,
        "unit": "tokens/s", "ratio": ratio, "ours_mib": mib[0], "theirs_mib": mib[1], "config": config,
    }  # fmt: skip


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "performance.md"
    path.write_text(TEMPLATE)
    monkeypatch.setattr(write_docs, "DOCS", path)
    monkeypatch.setattr(write_docs, "RESULTS", tmp_path / "results")
    return path


def test_what_falls_short_stands_out(docs: Path) -> None:
    rows = [
        record("pretrain tiny8k", "transformers", False, 1.7), record("pretrain tiny8k", "transformers", True, 1.31),
        record("SFT, uneven conversations", "trl", False, 9.0, (300, 400)),
    ]  # fmt: skip
    pair.write_rows(docs.parent / "results" / "pretrain.jsonl", rows)
    pair.write_rows(docs.parent / "results" / "dpo.jsonl", [record("DPO", "trl", True, None)])
    series = {"step_time": [{"tokens": 1024, "seconds": 0.25}], "recompute": [{"activations": "x", "skipped": "no"}]}
    (docs.parent / "results" / "growth.json").write_text(json.dumps({"series": series}))
    for _ in range(2):  # the second time in place of the first
        assert write_docs.main() == 0
        text = docs.read_text()
        assert text.startswith("Mine.\n")
        assert "By hand." in text
        assert "stale" not in text
        assert text.count("A processor, 2 cores") == 2
        assert "| **1.70x** | 1.70-1.70 | 1.8x |" in text
        assert "| 1.31x | 1.31-1.31 | 1.3x |" in text
        assert "| 300 / 400 | **0.75**, 0.50 |" in text
        assert "- DPO, trl: there is no such interpreter" in text
        assert "| 1,024 | 0.25 |" in text
        assert "Skipped: no" in text


def test_a_page_without_a_place_is_refused(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs.write_text("nothing")
    assert write_docs.main() == 1
    assert "no place for 'machine'" in capsys.readouterr().err
