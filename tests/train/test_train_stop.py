"""A signal that reaches one rank stops them all, after one snapshot."""

from __future__ import annotations

from pathlib import Path

from test_train_ranks import torchrun

from fledge.model.decoder import Decoder
from fledge.train.snapshot import latest


def test_ranks_stop_together(tiny_decoder: Decoder, tmp_path: Path) -> None:
    torchrun(2, Path(__file__).with_name("ranks_stop.py"), str(tmp_path), tiny_decoder.config.model_dump_json())
    assert sorted(place.name for place in tmp_path.glob("stopped-*")) == ["stopped-0", "stopped-1"]
    place = latest(tmp_path / "snapshots")
    assert place is not None
    assert place.name == "step-00000002"
