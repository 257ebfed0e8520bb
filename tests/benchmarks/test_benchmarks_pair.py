"""The harness: ratios within rounds, stale rows replaced, peers that are missing skipped with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pair
import pytest
from pair import Peer, Row, Side

# A side that answers with the next of the figures in a file, and holds so many MiB.
SCRIPT = """
import json, pathlib, sys
path, mib = pathlib.Path(sys.argv[1]), int(sys.argv[2])
held = b"x" * (mib << 20)
figures = json.loads(path.read_text())
path.write_text(json.dumps(figures[1:]))
if figures[0] is None:
    sys.exit("out of luck")
print("noise")
print(json.dumps({"rate": figures[0], "first_step_seconds": 0.1, "versions": {"python": "3"}}))
"""


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "figures.py").write_text(SCRIPT)
    monkeypatch.setattr(pair, "SIDES", tmp_path)
    monkeypatch.delenv("BENCH_LOCK", raising=False)

    def make(name: str, figures: list[float | None], mib: int = 1, environment: str = "") -> Side:
        (tmp_path / name).write_text(json.dumps(figures))
        return Side("figures.py", (str(tmp_path / name), str(mib)), environment)

    return make


def test_ratios_are_made_within_rounds(side: Any) -> None:
    """The machine drifts: every round is twice as slow as the one before, on both sides."""
    ours, theirs = side("a", [80.0, 40.0, 20.0], mib=1500), side("b", [40.0, 10.0, 5.0])
    lines: list[str] = []
    kept: list[Any] = []
    row = Row("job", "tokens/s", ours, (Peer("them", True, (theirs,)),))
    (found,) = pair.measure(row, 3, 60.0, lines.append, kept.append)
    assert tuple(found) == pair.KEYS
    assert [[row["config"]["rounds"] for row in rows] for rows in kept] == [[1], [2], [3]]
    assert found["config"]["ratios"] == [2.0, 4.0, 4.0]
    assert (found["ratio"], found["ours"], found["theirs"]) == (4.0, 40.0, 10.0)
    # this process, with torch in it, is the least that the harness would see here
    assert 1500 < found["ours_mib"] < 1800
    assert found["theirs_mib"] < 1300
    assert found["config"]["theirs"]["values"] == [40.0, 10.0, 5.0]
    order = [("ours" if "/a " in line else "theirs") for line in lines]
    assert order == ["ours", "theirs"] * 3
    shown = pair.table([found])
    assert "4.00x" in shown
    assert "2.00-4.00" in shown


def test_less_is_better_where_the_unit_is_time(side: Any) -> None:
    row = Row("job", "s", side("a", [2.0]), (Peer("them", False, (side("b", [6.0]),)),), lower=True)
    assert pair.measure(row, 1, 60.0, print, print)[0]["ratio"] == 3.0


@pytest.mark.parametrize(("lower", "best"), [(False, 30.0), (True, 10.0)])
def test_the_best_candidate_is_the_peer(side: Any, lower: bool, best: float) -> None:
    candidates = (side("b", [10.0, 10.0]), side("c", [30.0, 30.0]))
    row = Row("job", "x", side("a", [30.0, 30.0]), (Peer("them", True, candidates),), lower=lower)
    lines: list[str] = []
    (found,) = pair.measure(row, 2, 60.0, lines.append, print)
    assert found["theirs"] == best
    assert list(found["config"]["candidates"].values()) == [10.0, 30.0]
    assert len(lines) == 5, "the slower candidate takes no part in the second round"


def test_a_missing_peer_is_skipped_with_the_reason(side: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEER_LITGPT", "/nowhere/python")
    monkeypatch.delenv("NANOCHAT", raising=False)
    peers = (
        Peer("litgpt", False, (side("b", [1.0], environment="litgpt"),)),
        Peer("nanochat", False, (side("c", [1.0], environment="nanochat"),)),
        Peer("fails", False, (side("d", [None]),)),
        Peer("works", False, (side("e", [1.0]),)),
    )
    lines: list[str] = []
    found = pair.measure(Row("job", "x", side("a", [2.0]), peers), 1, 60.0, lines.append, print)
    reasons = [row["config"].get("skipped", "") for row in found]
    assert "/nowhere/python" in reasons[0]
    assert "PEER_LITGPT" in reasons[0]
    assert "NANOCHAT=" in reasons[1]
    assert "out of luck" in reasons[2]
    assert not reasons[3]
    assert found[3]["ratio"] == 2.0
    assert all(row["theirs"] is None and row["ratio"] is None and row["ours"] == 2.0 for row in found[:3])
    assert sum(line.startswith("  skipped: ") for line in lines) == 3
    shown = pair.table(found)
    assert "/nowhere/python" in shown
    assert "out of luck" in shown


def record(job: str, peer: str, ours: float, cpu: str = "this", tuned: bool = False) -> dict[str, Any]:
    config = {"machine": {"cpu": cpu, "cores": 2}}
    values = {"job": job, "peer": peer, "tuned": tuned, "ours": ours, "config": config}
    return {key: values.get(key) for key in pair.KEYS}


def test_a_run_replaces_its_stale_rows(tmp_path: Path) -> None:
    path = tmp_path / "results" / "job.jsonl"
    pair.write_rows(path, [record("a", "x", 1), record("a", "y", 1), record("b", "x", 1), record("a", "x", 1, "other")])
    pair.write_rows(path, [record("a", "x", 2), record("a", "x", 2, tuned=True)])
    rows = [(r["job"], r["peer"], r["tuned"], r["ours"], r["config"]["machine"]["cpu"]) for r in pair.read_rows(path)]
    assert rows == [
        ("a", "y", False, 1, "this"), ("b", "x", False, 1, "this"), ("a", "x", False, 1, "other"),
        ("a", "x", False, 2, "this"), ("a", "x", True, 2, "this"),
    ]  # fmt: skip
    pair.write_rows(path, [record("c", "z", 3)], whole=True)
    assert [(r["job"], r["config"]["machine"]["cpu"]) for r in pair.read_rows(path)] == [("a", "other"), ("c", "this")]
