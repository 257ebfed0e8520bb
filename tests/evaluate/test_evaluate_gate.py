"""The gate: what counts as a fall, and what the stage does then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluate_items import evaluation

from fledge.core.artefact import is_finished, read_manifest
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError, DataError, Halt
from fledge.evaluate import gate
from fledge.evaluate.gate import row_of
from fledge.evaluate.metrics import mcnemar, wilson


def pairs(lost: int, gained: int, same: int) -> list[tuple[float, float]]:
    return [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(1.0, 1.0)] * same


def test_wilson() -> None:
    """Against the worked values of Brown, Cai and DasGupta's comparison (2001), and at the ends."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(250, 500) == pytest.approx((0.4563, 0.5437), abs=1e-4)
    with pytest.raises(ValueError, match="impossible"):
        wilson(3, 2)


def test_mcnemar() -> None:
    """The binomial tail by hand: 2 x 1/2^10 for ten lost and none gained, 2 x (1 + 8 + 28)/2^8 for six and two."""
    assert mcnemar(10, 0) == pytest.approx(2 / 1024)
    assert mcnemar(6, 2) == mcnemar(2, 6) == pytest.approx(2 * 37 / 256)
    assert mcnemar(5, 5) == mcnemar(0, 0) == 1
    with pytest.raises(ValueError, match="impossible"):
        mcnemar(-1, 2)


@pytest.mark.parametrize(
    ("lost", "gained", "same", "tolerance", "verdict"),
    [
        (0, 0, 100, 0.0, "kept"),
        (0, 30, 70, 0.0, "kept"),
        (5, 4, 491, 0.02, "kept"),
        (30, 5, 465, 0.02, "fell"),  # 5 points, p = 2e-5
        (30, 5, 465, 0.05, "unclear"),  # exactly what is tolerated: no fall, but not shown to be less either
        (30, 5, 465, 0.1, "kept"),
        (4, 0, 16, 0.02, "unclear"),  # 20 points of 20 items: p = .125
        (6, 0, 14, 0.02, "fell"),  # p = .03
        (20, 19, 61, 0.02, "unclear"),
        (100, 0, 0, 0.02, "fell"),
    ],
)
def test_verdicts(lost: int, gained: int, same: int, tolerance: float, verdict: str) -> None:
    row = row_of("sums", pairs(lost, gained, same), tolerance, 2000, 0)
    assert row["verdict"] == verdict, row
    n = lost + gained + same
    assert (row["lost"], row["gained"], row["difference"]["n"]) == (lost, gained, n)
    assert row["difference"]["mean"] == pytest.approx((gained - lost) / n)
    assert (row["before"]["low"], row["before"]["high"]) == wilson(lost + same, n)
    assert row["p"] == mcnemar(lost, gained)


def test_scores_between_0_and_1_go_by_the_bootstrap() -> None:
    row = row_of("format", [(0.9, 0.5 + 0.1 * (i % 3)) for i in range(60)], 0.05, 2000, 0)
    assert (row["p"], row["verdict"]) == (None, "fell")
    assert row["before"]["low"] == pytest.approx(0.9)


def setup(folder: Path, **more: Any) -> gate.Config:
    before = evaluation(
        folder / "before", {("sums", "en"): [1] * 40, ("sums", "zh"): [1] * 40, ("code", "en"): [1] * 40}
    )
    scores = {("sums", "en"): [0] * 20 + [1] * 20, ("sums", "zh"): [1] * 40, ("code", "en"): [0] * 2 + [1] * 38}
    after = evaluation(folder / "after", scores)
    return build(gate.Config, {"before": before, "after": after, "must_keep": {"sums": 0.02, "*": 0.03}} | more)


def test_a_fall_stops_and_is_recorded(tmp_path: Path) -> None:
    config, out = setup(tmp_path), tmp_path / "sums-gate"
    with pytest.raises(Halt, match=r"sums: 100\.0% before, 75\.0% after, -25\.0 points [\s\S]*on_fall=warn") as stopped:
        gate.run(config, out)
    assert "code" not in str(stopped.value)
    rows = json.loads((out / "gate.json").read_text())["rows"]
    assert [(row["skill"], row["verdict"]) for row in rows] == [("sums", "fell"), ("code", "unclear")]
    assert read_manifest(out)["metrics"] == {"kept": 0, "unclear": 1, "fell": 1, "fallen": ["sums"]}


def test_it_stops_again_until_told_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = setup(tmp_path), tmp_path / "gate"
    for _ in range(2):
        with pytest.raises(Halt):
            gate.run(config, out)
    made = (out / "manifest.json").stat().st_mtime_ns
    gate.run(config.model_copy(update={"on_fall": "warn"}), out)
    assert "more was lost than is tolerated" in capsys.readouterr().err
    assert (out / "manifest.json").stat().st_mtime_ns == made, "nothing is made anew"
    with pytest.raises(ArtefactError, match="must_keep"):
        gate.run(config.model_copy(update={"must_keep": {"sums": 0.5}}), out)


def test_what_is_kept_passes_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate.run(setup(tmp_path, must_keep={"sums/zh": 0.1}), tmp_path / "gate")
    assert is_finished(tmp_path / "gate")
    assert capsys.readouterr().err == ""


def test_the_rest_is_whatever_is_not_named(tmp_path: Path) -> None:
    """A skill of which one language is named is still watched in its others."""
    with pytest.raises(Halt, match="sums/en"):
        gate.run(setup(tmp_path, must_keep={"sums/zh": 0.1, "*": 0.03}), tmp_path / "gate")
    rows = json.loads((tmp_path / "gate" / "gate.json").read_text())["rows"]
    assert [row["skill"] for row in rows] == ["sums/zh", "code", "sums/en"]


def test_only_items_of_both_count(tmp_path: Path) -> None:
    before = evaluation(tmp_path / "a", {("sums", "en"): [1] * 10})
    after = evaluation(tmp_path / "b", {("sums", "en"): [0] * 10}, start=8)
    gate.run(build(gate.Config, {"before": before, "after": after, "must_keep": {"sums": 0.02}}), tmp_path / "gate")
    found = json.loads((tmp_path / "gate" / "gate.json").read_text())
    assert (found["rows"][0]["difference"]["n"], found["unpaired"], found["rows"][0]["verdict"]) == (2, 16, "unclear")
    far = evaluation(tmp_path / "c", {("sums", "en"): [0] * 10}, start=100)
    with pytest.raises(DataError, match="no item in common"):
        gate.run(build(gate.Config, {"before": before, "after": far, "must_keep": {"*": 0.02}}), tmp_path / "other")


@pytest.mark.parametrize(
    ("must_keep", "kind", "words"),
    [
        ({"sum": 0.02}, DataError, r"no items of 'sum' .*did you mean 'sums'"),
        ({"sums/fr": 0.02}, DataError, "sums/"),
        ({"sums": 2}, ConfigError, "two points are 0.02"),
        ({"sums": -0.1}, ConfigError, "a share"),
        ({}, ConfigError, "must_keep"),
    ],
)
def test_what_cannot_be_asked(must_keep: dict[str, float], kind: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        gate.run(setup(tmp_path, must_keep=must_keep), tmp_path / "gate")
