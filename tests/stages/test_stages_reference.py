"""Reference log-probabilities on disk: found by a run with another beta, by no run that they are not for."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from stages_small import Small

from fledge.model.hf import load_decoder
from fledge.stages import reference
from fledge.stages.dialogues import pair_example
from fledge.stages.reference import FOLDER, fingerprint, with_reference
from fledge.train.mesh import Mesh


def kept(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / FOLDER).iterdir())


def weights(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def test_another_beta_finds_it(small: Small, tmp_path: Path) -> None:
    quick: dict[str, Any] = {"replay": None, "epochs": 0.3}
    first = small.run("dpo", tmp_path / "a", **quick)["metrics"]["reference"]
    assert kept(tmp_path) == [first]
    written = (tmp_path / FOLDER / f"{first}.safetensors").stat().st_mtime_ns
    second = small.run("dpo", tmp_path / "b", beta=0.5, loss="ipo", **quick)["metrics"]["reference"]
    assert second == first
    assert (tmp_path / FOLDER / f"{first}.safetensors").stat().st_mtime_ns == written
    alone = tmp_path / "alone"
    small.run("dpo", alone / "b", beta=0.5, loss="ipo", **quick)
    assert weights(alone / "b") == weights(tmp_path / "b"), "what was kept is what would be computed"


def test_whatever_matters_makes_another(small: Small, tmp_path: Path) -> None:
    """Data, model, reference, tokenizer's template, length limit, packing, precision: another file each."""
    base: dict[str, Any] = {"replay": None, "epochs": 0.1}
    row = json.loads(Path(small.at("world/preferences.jsonl")).read_text(encoding="utf-8").splitlines()[0])
    rows = Path(small.at("world/preferences.jsonl")).read_text(encoding="utf-8").splitlines()
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join([*rows[:-1], json.dumps({**row, "chosen": row["chosen"] + "!"})]) + "\n")
    model = tmp_path / "model"
    shutil.copytree(small.at("pretrain"), model)
    decoder = load_decoder(model)
    with torch.no_grad():
        decoder.model.norm.weight[0] += 1e-3
    from fledge.model.hf import save_decoder

    (model / "manifest.json").unlink()
    save_decoder(decoder, model)
    changes: list[dict[str, Any]] = [
        {}, {"data": [str(data)]}, {"model": str(model)}, {"reference": str(model)}, {"max_tokens": 60},
        {"loop": {"micro_tokens": 512}}, {"dtype": "bfloat16"},
    ]  # fmt: skip
    found = [small.run("dpo", tmp_path / f"out{i}", **base, **c)["metrics"]["reference"] for i, c in enumerate(changes)]
    assert found[3] == found[2], "the weights that score count, not the key that names them"
    del found[3]
    assert len(set(found)) == len(found)


def test_the_code_that_scores_is_part_of_it(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, pairs = load_decoder(small.at("pretrain")), [pair_example([5, 6], [7], [8, 9], "here")]
    before = fingerprint(pairs, decoder, torch.float32, 512, "cpu")
    assert before == fingerprint(pairs, decoder, torch.float32, 512, "cpu")
    assert before != fingerprint([pair_example([5, 6], [7], [8, 10], "here")], decoder, torch.float32, 512, "cpu")
    monkeypatch.setattr(reference, "_code", lambda: "other")
    assert before != fingerprint(pairs, decoder, torch.float32, 512, "cpu")


@pytest.mark.parametrize("damage", ["cut", "bits", "empty"])
def test_a_damaged_file_is_told_of_and_made_again(damage: str, small: Small, tmp_path: Path) -> None:
    decoder = load_decoder(small.at("pretrain"))
    pairs = [pair_example([5, 6, i], [7, i], [8, 9], "here") for i in range(10, 20)]

    def ask() -> list[float]:
        with_column, key = with_reference(pairs, decoder, torch.float32, 512, tmp_path, Mesh())
        path.append(tmp_path / f"{key}.safetensors")
        return [float(x) for pair in with_column for s in pair.segments[1:] for x in s.columns["reference"]]

    path: list[Path] = []
    whole = ask()
    data = path[0].read_bytes()
    path[0].write_bytes({"cut": data[:-9], "bits": data[:-6] + b"\x01\x02\x03" + data[-3:], "empty": b""}[damage])
    with pytest.warns(UserWarning, match="damaged .*; what the reference says is computed again"):
        assert ask() == whole
    assert path[0].read_bytes() == data
    assert ask() == whole
