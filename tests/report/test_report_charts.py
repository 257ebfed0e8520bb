"""Curves."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

from fledge.report.charts import POINTS, _binned, _smoothed, charts, series


def test_every_numeric_key_is_drawn_or_named() -> None:
    rows = [
        {"step": i, "loss": 1 / i, "nll": 1 / i, "beta": 0.1, "zeta": float(i), "note": "text", "flag": True, "x": None}
        for i in range(1, 50)
    ]  # fmt: skip
    rows[9] |= {"loss": math.nan, "nll": math.inf}
    rows[-1]["bits_per_byte"] = 1.5
    drawn, left = charts(rows)
    assert [chart.key for chart in drawn] == ["loss", "zeta"], "the same curve under two names is drawn once"
    assert left == ["bits_per_byte = 1.5", "beta = 0.1"]
    assert len(series(rows)["loss"][1]) == 48, "what is not finite is left out"


def test_a_chart_is_xml_in_the_colours_of_the_page() -> None:
    (chart, _), _ = charts([{"step": i, "loss": float(i), "a/b<c>": float(-i)} for i in range(9)])
    root = ElementTree.fromstring(chart.svg.replace("xlink:", ""))
    assert root.tag.endswith("svg")
    assert "var(--accent)" in chart.svg
    assert "#0203" not in chart.svg
    assert "<style" not in chart.svg


def test_bins_are_one_chart() -> None:
    """Shares by where a bin begins, in that order, as means over the steps."""
    rows = [{"step": i, "gap_bin_0.1": 0.25, "gap_bin_-inf": 0.5, "gap_bin_-0.1": i / 2 - 0.5} for i in (1, 2)]
    (chart,), left = charts(rows)
    assert (chart.key, left) == ("gap", [])
    assert chart.last == 0.5
    names = [text for text in ("-inf", "-0.1", "0.1") if f">{text}<" in chart.svg.replace("−", "-")]
    assert names == ["-inf", "-0.1", "0.1"]


def test_many_points_are_averaged() -> None:
    steps, values = _binned([float(i) for i in range(10_000)], [1.0, 3.0] * 5000)
    assert len(values) == POINTS
    assert all(abs(value - 2) < 0.1 for value in values)
    assert steps == sorted(steps)
    smooth = _smoothed([5.0] * 50)
    assert all(abs(value - 5) < 1e-9 for value in smooth), "no pull towards zero at the start"
