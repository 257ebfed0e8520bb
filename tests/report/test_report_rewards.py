"""What the report shows of a reward model."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from fledge.core.artefact import produce, write_json
from fledge.core.config import Config
from fledge.report.collect import read_run
from fledge.report.rewards import reward_model
from fledge.report.run import write_report
from fledge.reward import quality

HOSTILE = "<script>alert(1)</script>"


def test_all_that_was_measured_is_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    better, worse, margin = rng.normal(1, 1, 80), rng.normal(0, 1, 80), rng.random(80)
    curve = {"1": 0.2, "2": 0.3, "4": 0.4}
    found = {
        "accuracy": quality.accuracy(better, worse),
        "accuracy_by_margin": quality.accuracy_by_margin(better, worse, margin),
        "accuracy_by_tag": {HOSTILE: {"pairs": 80.0, "accuracy": 0.5}},
        "best_of_n": {"prompts": 3, "chosen": curve, "oracle": curve},
        **quality.calibration(better, worse),
    }
    for name, written in (("reward", found), ("unmeasured", None)):
        with produce(tmp_path / "run" / name, kind="model", stage="reward", config=Config()) as work:
            if written:
                write_json(work.folder / "quality.json", written)
    shown = [reward_model(artefact) for artefact in read_run(tmp_path / "run").artefacts]
    assert shown[1] is None
    assert shown[0] is not None
    titles = [chart["title"] for chart in shown[0]["charts"]]
    assert len(titles) == 3
    for chart in shown[0]["charts"]:
        assert ElementTree.fromstring(chart["svg"].replace("xlink:", "")).tag.endswith("svg")
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "expected calibration error" in page
    assert all(title.split(" (")[0] in page for title in titles)
    assert HOSTILE not in page
