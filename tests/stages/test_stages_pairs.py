"""The builder of pairs: from two files, from two models, from one of each; what makes no pair is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stages_small import Small

from fledge.core.config import build
from fledge.core.errors import ConfigError, DataError
from fledge.core.readers import read_records
from fledge.core.records import Preference
from fledge.model.adapters import LoraConfig, add_adapters, save_adapters
from fledge.model.hf import load_decoder
from fledge.stages.pairs import Config, run


def conversations(path: Path, answers: dict[str, str]) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in answers.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def made(out: Path, **values: Any) -> tuple[list[Preference], dict[str, Any]]:
    run(build(Config, values), out)
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return list(read_records(out / "pairs.jsonl", Preference)), manifest["metrics"]


def test_from_two_files(tmp_path: Path) -> None:
    strong = conversations(tmp_path / "strong.jsonl", {"a": "good", "b": "same", "c": "lonely", "d": " "})
    weak = conversations(tmp_path / "weak.jsonl", {"d": "bad", "b": "same", "a": "bad"})
    # an empty answer is a row that cannot be read, in this shape as everywhere
    pairs, metrics = made(tmp_path / "out", strong=str(strong), weak=str(weak), on_error="skip")
    assert [(p.prompt[0].content, p.chosen, p.rejected) for p in pairs] == [("a", "good", "bad")]
    assert metrics["left_out"] == {"both answers are the same": 1, "weak: no answer": 1, "strong: empty": 1}
    with pytest.raises(DataError, match="no pair in 1 prompts"):
        made(tmp_path / "none", strong=str(conversations(tmp_path / "x.jsonl", {"z": "y"})), weak=str(weak))


def test_nothing_of_a_file_goes_unsaid(tmp_path: Path) -> None:
    """A second answer is not used and counted; a row with tools is refused, or counted with its place."""
    strong = conversations(tmp_path / "strong.jsonl", {"a": "good"})
    strong.write_text(strong.read_text() + strong.read_text().replace("good", "fine"))
    weak = conversations(tmp_path / "weak.jsonl", {"a": "bad"})
    _, metrics = made(tmp_path / "out", strong=str(strong), weak=str(weak))
    assert metrics["second_answers_unused"] == {"strong": 1, "weak": 0}
    row = json.loads(weak.read_text())
    strong.write_text(strong.read_text() + json.dumps({**row, "tools": [{"name": "search"}]}) + "\n")
    with pytest.raises(DataError, match=r"strong.jsonl:3: has tools"):
        made(tmp_path / "tools", strong=str(strong), weak=str(weak))
    _, metrics = made(tmp_path / "skip", strong=str(strong), weak=str(weak), on_error="skip")
    assert metrics["skipped"] == 1
    skipped = json.loads((tmp_path / "skip" / "skipped.jsonl").read_text())
    assert skipped["place"].endswith("strong.jsonl:3")


def test_adapters_are_a_model(small: Small, tmp_path: Path) -> None:
    """A folder of adapters, which has no config.json, answers like any model."""
    decoder, lora = add_adapters(load_decoder(small.at("pretrain")), LoraConfig(), 0), LoraConfig()
    save_adapters(decoder, lora, Path(small.at("pretrain")), tmp_path / "adapters")
    common = {"prompts": [small.at("world/sft.jsonl")], "limit": 8, "sampling": {"max_new_tokens": 200}}
    strong = small.at("world/sft.jsonl")
    for name, weak in (("adapters", str(tmp_path / "adapters")), ("whole", small.at("pretrain"))):
        made(tmp_path / f"{name}-pairs", strong=strong, weak=weak, **common)
    one, other = ((tmp_path / f"{name}-pairs" / "weak.jsonl").read_text() for name in ("adapters", "whole"))
    assert one == other  # they change nothing yet


def test_from_models(small: Small, tmp_path: Path) -> None:
    """A model against a file, and a model against another; an interrupted run keeps the answers that it has."""
    world = small.at("world/preferences.jsonl")
    sampling = {"temperature": 1.3, "max_new_tokens": 200}
    model = small.at("pretrain")
    common: dict[str, Any] = {"prompts": [world, small.at("world/sft.jsonl")], "limit": 60, "sampling": sampling}
    mixed = {**common, "prompts": []}  # those of the file
    pairs, metrics = made(tmp_path / "mixed", strong=small.at("world/sft.jsonl"), weak=model, **mixed)
    assert metrics["prompts"] == 60 == len(pairs) + sum(metrics["left_out"].values())
    quiet, counted = made(tmp_path / "quiet", strong=model, weak=model, **common)
    assert all(pair.chosen != pair.rejected for pair in quiet)
    assert counted["left_out"], "a model that was hardly trained is cut off now and then"
    # as a kill leaves it: some answers, the last line cut
    config = build(Config, {"strong": model, "weak": model, **common})
    partial = tmp_path / ".killed.partial"
    with pytest.raises(KeyboardInterrupt):
        _stopped(config, tmp_path / "killed")
    lines = (tmp_path / "quiet" / "strong.jsonl").read_bytes().splitlines(keepends=True)
    (partial / "strong.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:5])
    run(config, tmp_path / "killed")
    for name in ("pairs.jsonl", "strong.jsonl", "weak.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes(), name


def _stopped(config: Config, out: Path) -> None:
    from fledge.core.artefact import produce

    inputs = {"strong": config.strong, "weak": config.weak, "prompts": config.prompts}
    with produce(out, kind="records", stage="pairs", config=config, inputs=inputs, seed=config.seed):
        raise KeyboardInterrupt


def test_two_models_need_prompts(small: Small) -> None:
    with pytest.raises(ConfigError, match="name the files whose prompts they answer"):
        build(Config, {"strong": small.at("pretrain"), "weak": small.at("pretrain")})
