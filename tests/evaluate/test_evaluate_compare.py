"""Paired differences and the table."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from evaluate_items import evaluation
from rich.console import Console

from fledge.commands.summary import print_scores
from fledge.core.errors import ArtefactError
from fledge.core.readers import write_jsonl
from fledge.evaluate.compare import compare, table


def test_paired_difference(tmp_path: Path) -> None:
    before = evaluation(tmp_path / "a", {("sums", "en"): [0, 1] * 50, ("sums", "zh"): [1] * 10})
    after = evaluation(tmp_path / "b", {("sums", "en"): [1, 1] * 50, ("sums", "zh"): [1] * 10})
    found = compare(before, after)
    english = found["skills"]["sums"]["en"]
    assert (english["mean"], english["n"], english["before"], english["after"]) == (0.5, 100, 0.5, 1.0)
    assert 0.35 < english["low"] < 0.5 < english["high"] < 0.65
    assert found["skills"]["sums"]["zh"]["mean"] == 0
    assert (found["only_before"], found["only_after"]) == (0, 0)


def test_items_are_paired_by_id_not_by_place(tmp_path: Path) -> None:
    before = evaluation(tmp_path / "a", {("s", "en"): [0, 0, 1, 1]})
    after = evaluation(tmp_path / "b", {("s", "en"): [1, 1, 0, 0]}, start=2)
    found = compare(before, after)
    assert (found["skills"]["s"]["en"]["n"], found["skills"]["s"]["en"]["mean"]) == (2, 0.0)
    assert (found["only_before"], found["only_after"]) == (2, 2)


def test_another_prompt_under_the_same_id_is_refused(tmp_path: Path) -> None:
    before = evaluation(tmp_path / "a", {("s", "en"): [0]})
    after = evaluation(tmp_path / "b", {("s", "en"): [0]})
    row = json.loads((after / "results.jsonl").read_text())
    write_jsonl(after / "results.jsonl", [row | {"prompt": [{"role": "user", "content": "other"}]}])
    with pytest.raises(ArtefactError, match="another prompt"):
        compare(before, after)


def test_missing_evaluation(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no finished evaluation"):
        compare(tmp_path, tmp_path)
    with pytest.raises(ArtefactError, match="no finished evaluation"):
        table({"x": tmp_path})


def test_table(tmp_path: Path) -> None:
    skipped = [{"skill": "code", "language": "en", "reason": "no sandbox", "n": 3}]
    base = evaluation(tmp_path / "a", {("sums", "en"): [0, 1], ("sums", "zh"): [0, 0]}, skipped=skipped)
    sft = evaluation(tmp_path / "b", {("sums", "en"): [1, 1], ("sums", "zh"): [1, 0], ("[b]x", "en"): [1]})
    data = table({"base": base, "sft": sft})
    assert data["columns"] == [
        {"skill": "[b]x", "languages": ["en"]},
        {"skill": "code", "languages": ["en"]},
        {"skill": "sums", "languages": ["zh", "en"]},
    ]
    assert data["rows"][0]["cells"]["sums"]["en"]["mean"] == 0.5
    assert data["rows"][0]["skipped"][0]["reason"] == "no sandbox"
    console = Console(width=80, file=io.StringIO(), record=True)
    print_scores({"base": base, "sft": sft}, console)
    text = console.export_text()
    rows = [line.split() for line in text.splitlines()]
    assert ["sums", "zh", "0", "50"] in rows
    assert ["en", "50", "100"] in rows
    assert "[b]x" in text
    json.dumps(data)
