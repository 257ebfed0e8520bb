"""What a stage starts from: tokenizers that must agree, what a continued model needs, rows of a fresh embedding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from stages_small import NANO, Small

from fledge.core.artefact import read_manifest
from fledge.core.bench import Bench
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError
from fledge.model import sizes
from fledge.model.hf import load_config
from fledge.stages import pretrain
from fledge.tokenizer.tokenizer import ids_hash


def other_ids(folder: str, out: Path) -> Path:
    """The same folder, but for two tokens that have each other's id."""
    shutil.copytree(folder, out)
    path = out / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return out


def continued(small: Small, **changes: Any) -> dict[str, Any]:
    values = small.config("pretrain", **{"start": small.at("pretrain"), "tokens": 512, **changes})
    return {key: value for key, value in values.items() if key not in ("tokenizer", "model") or key in changes}


def test_shards_of_another_tokenizer_are_refused(small: Small, tmp_path: Path) -> None:
    assert read_manifest(Path(small.at("shards")))["metrics"]["tokenizer_ids"] == ids_hash(Path(small.at("tokenizer")))
    fresh = other_ids(small.at("tokenizer"), tmp_path / "tokenizer")
    with pytest.raises(ArtefactError, match=f"shards: was encoded with another tokenizer than {fresh}"):
        small.run("pretrain", tmp_path / "a", tokenizer=str(fresh))
    start = other_ids(small.at("pretrain"), tmp_path / "start")
    values = continued(small, start=str(start), optimizer={"name": "adamw", "lr": 1e-3})
    with pytest.raises(ArtefactError, match=f"another tokenizer than {start}"):
        pretrain.run(build(pretrain.Config, values), tmp_path / "b")
    # the same tokenizer written by somebody else is the same
    again = tmp_path / "again"
    shutil.copytree(small.at("tokenizer"), again)
    text = (again / "tokenizer.json").read_text(encoding="utf-8")
    (again / "tokenizer.json").write_text(json.dumps(json.loads(text), indent=7), encoding="utf-8")
    small.run("pretrain", tmp_path / "c", tokenizer=str(again), tokens=512)


def test_a_reference_with_another_tokenizer_is_refused(small: Small, tmp_path: Path) -> None:
    other = other_ids(small.at("pretrain"), tmp_path / "other")
    with pytest.raises(ArtefactError, match=rf"{other}: the reference has another tokenizer than .*pretrain"):
        small.run("dpo", tmp_path / "a", reference=str(other))
    same = tmp_path / "same"
    shutil.copytree(small.at("pretrain"), same)
    small.run("dpo", tmp_path / "b", reference=str(same), epochs=0.1, replay=None)


def test_a_continued_model_needs_its_settings(small: Small, tmp_path: Path) -> None:
    """The advice of the smallest size is not for whatever model is given."""
    values = {"shards": small.at("shards"), "start": small.at("pretrain")}
    with pytest.raises(ConfigError, match=r"optimizer\.name, optimizer\.lr, context, batch_tokens; or model\.size"):
        build(pretrain.Config, values)
    with pytest.raises(ConfigError, match=r"give optimizer\.name"):
        build(pretrain.Config, {**values, "optimizer": {"lr": 1e-4}, "context": 64, "batch_tokens": 512})
    for key, value in (("shape", {"num_hidden_layers": 3}), ("start", "induction")):
        with pytest.raises(ConfigError, match=rf"model\.{key}: has no effect"):
            build(pretrain.Config, {**values, "model": {"size": "nano", key: value}})
    sized = build(pretrain.Config, {**values, "model": NANO})
    advice = sizes.recommended("nano")
    assert (sized.context, sized.optimizer.lr) == (advice["context"], advice["lr"])
    config = build(pretrain.Config, continued(small, optimizer={"name": "adamw", "lr": 1e-4}))
    assert (config.optimizer.name, config.optimizer.lr, config.context) == ("adamw", 1e-4, 64)
    assert build(pretrain.Config, config.plain()) == config
    pretrain.run(config, tmp_path / "out")
    shape = load_config(tmp_path / "out")
    assert shape == load_config(small.at("pretrain"))
    facts = pretrain.estimate(config, Bench(measure=False))
    assert facts["parameters"] == shape.parameters
    assert facts["parameters"] == read_manifest(tmp_path / "out")["metrics"]["parameters"]


def test_the_embedding_has_the_tokenizers_rows(small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "padded"
    shutil.copytree(small.at("tokenizer"), folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"embedding_rows": 640}))
    config = build(pretrain.Config, small.config("pretrain", tokenizer=str(folder), tokens=512))
    assert pretrain.estimate(config, Bench(measure=False))["shape"]["vocab_size"] == 640
    pretrain.run(config, tmp_path / "out")
    assert load_config(tmp_path / "out").vocab_size == 640
    rows = {name: pretrain.ModelConfig(size=name).build(4096).vocab_size for name in ("fledgling", "0.5b", "7b")}
    assert rows == {"fledgling": 4096, "0.5b": 151_936, "7b": 152_064}
    assert pretrain.ModelConfig(size="0.5b").build(160_000).vocab_size == 160_000
    assert pretrain.ModelConfig(size="0.5b", shape={"vocab_size": 8192}).build(4096).vocab_size == 8192
