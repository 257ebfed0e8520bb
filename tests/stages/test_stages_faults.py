"""Bad input and bad luck: each a clear error or a counted skip, and nothing good lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stages_small import Small

from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError, DataError, FledgeError
from fledge.model import sizes
from fledge.model.decoder import Decoder
from fledge.stages import pretrain, sft
from fledge.train import snapshot
from fledge.train.batch import single
from fledge.train.loop import GlobalBatch, Loop, LoopConfig
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


GOOD = {"messages": [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "2"}]}
BAD: dict[str, tuple[Any, str]] = {
    "malformed": ('{"messages": [\n', "not valid JSON"),
    "no known key": ({"text": "x"}, "no conversation here"),
    "unknown key": ({**GOOD, "labels": 1}, "unknown key 'labels'"),
    "unknown role": ({"messages": [{"role": "boss", "content": "x"}]}, "role"),
    "empty answer": ({"prompt": "a", "response": " "}, "the answer is empty"),
    "content is a number": ({"messages": [{"role": "user", "content": 3}]}, "content"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_named_or_counted(name: str, small: Small, tmp_path: Path) -> None:
    row, reason = BAD[name]
    path = write(tmp_path / "data.jsonl", [GOOD, row, GOOD])
    with pytest.raises(DataError, match=reason) as error:
        small.run("sft", tmp_path / "failed", data=[str(path)])
    assert f"{path}:2" in str(error.value)
    metrics = small.run("sft", tmp_path / "kept", data=[str(path)], on_error="skip", batch_size=2, epochs=1)["metrics"]
    assert (metrics["rows_read"], metrics["rows_used"]) == (3, 2)
    skipped = (tmp_path / "kept" / "skipped.jsonl").read_text(encoding="utf-8")
    assert reason in skipped
    assert f"{path}:2" in skipped


def test_what_is_never_trained_on_and_what_is_too_long(small: Small, tmp_path: Path) -> None:
    """An untrained turn, an empty answer and a dialogue longer than the context are counted, each with its reason."""
    untrained = {"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "weight": 0}]}
    empty = {"messages": [GOOD["messages"][0], {"role": "assistant", "content": ""}]}
    long = {"messages": [{"role": "user", "content": "x y " * 400}, GOOD["messages"][1]]}
    path = write(tmp_path / "data.jsonl", [GOOD, untrained, empty, long])
    metrics = small.run("sft", tmp_path / "out", data=[str(path)], batch_size=1, epochs=1, max_tokens=64)["metrics"]
    assert metrics["rows_used"] == 1
    assert metrics["rows_skipped"] == {
        "no token is trained on": 1, "an answer is empty": 1, "longer than the context": 1,
    }  # fmt: skip
    only = write(tmp_path / "only.jsonl", [untrained])
    with pytest.raises(DataError, match=r"no usable conversation.*no token is trained on"):
        small.run("sft", tmp_path / "none", data=[str(only)])


def test_what_replay_leaves_out_is_told_apart(small: Small, tmp_path: Path) -> None:
    """Counts of the stage's own rows and of the replayed ones, each with its list; nothing of replay without it."""
    path = write(tmp_path / "data.jsonl", [GOOD, BAD["empty answer"][0], GOOD])
    replay = {"data": [str(path)], "batch_size": 1}
    metrics = small.run("dpo", tmp_path / "with", replay=replay, on_error="skip", epochs=0.1)["metrics"]
    assert (metrics["replay"]["rows_read"], metrics["replay"]["rows_used"]) == (3, 2)
    assert metrics["rows_skipped"] == {}
    assert "the answer is empty" in (tmp_path / "with" / "skipped-replay.jsonl").read_text(encoding="utf-8")
    assert "replay" not in small.run("dpo", tmp_path / "without", replay=None, epochs=0.1)["metrics"]


def test_unknown_key_and_wrong_type(small: Small) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lrr: unknown key; did you mean 'lr'"):
        build(sft.Config, small.config("sft", optimizer={"lr": 1e-3, "lrr": 1}))
    with pytest.raises(ConfigError, match="batch_size"):
        build(sft.Config, small.config("sft", batch_size="many"))


def test_a_part_of_the_optimizer_leaves_the_rest_as_the_size_recommends(small: Small) -> None:
    def made(**optimizer: Any) -> OptimizerConfig:
        return build(pretrain.Config, small.config("pretrain", optimizer=optimizer)).optimizer

    advice = sizes.recommended("nano")
    changed = made(schedule={"warmup": 3})
    assert (changed.name, changed.lr) == (advice["name"], advice["lr"])
    assert (changed.schedule.warmup, changed.schedule.floor) == (3, advice["min_lr_ratio"])
    assert made(name="adamw", lr=1e-3).name == "adamw"
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):  # Muon's rate is not AdamW's
        made(name="adamw")
    with pytest.raises(ConfigError, match=r"optimizer\.schedule\.warmop: unknown key; did you mean 'warmup'"):
        made(schedule={"warmop": 3})


def test_a_warmup_longer_than_the_run_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.schedule\.warmup=2000 steps, but the run has \d+"):
        small.run("sft", tmp_path / "out", optimizer={"lr": 1e-3, "schedule": {"warmup": 2000}})


def test_missing_and_foreign_models(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such"):
        small.run("sft", tmp_path / "a", model=str(tmp_path / "nowhere"))
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}')
    with pytest.raises(ArtefactError, match="GPT2LMHeadModel"):
        small.run("sft", tmp_path / "b", model=str(folder))


class Poisoned:
    """A source whose third batch makes the loss infinite."""

    def next(self, step: int, models: Any) -> GlobalBatch:
        weight = np.array([0, np.inf if step == 2 else 1, 1], np.float32)
        return GlobalBatch([single([1, 2, 3], weight, (f"document {step}", 0))])

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def test_nan_stops_and_names_the_batch(tiny_decoder: Decoder, tmp_path: Path) -> None:
    trainee = Trainee(tiny_decoder, OptimizerConfig(lr=1e-3))
    config = LoopConfig(snapshot_steps=2, tensorboard=False)
    loop = Loop(config, {"policy": trainee}, Poisoned(), Likelihood(), 5, tmp_path, "poisoned")
    with pytest.raises(FledgeError, match="step 3"):
        loop.run()
    named = json.loads((tmp_path / "failed-step-3.json").read_text())
    assert named["origins"] == [["document 2", 0]]
    kept = snapshot.latest(tmp_path / "snapshots")
    assert kept is not None
    assert kept.name == "step-00000002"
    assert all(bool(torch.isfinite(p).all()) for p in trainee.decoder.parameters())


def test_full_disk_in_a_snapshot_keeps_the_last_good_one(small: Small, tmp_path: Path) -> None:
    """The file system refuses to grow a file beyond a limit, as a full disk does, while the second snapshot is
    written; the run goes on from the first when there is room."""
    loop = {"snapshot_steps": 1, "snapshot_seconds": 1e9, "tensorboard": False}
    small.run("sft", tmp_path / "quiet", loop=loop)
    out = tmp_path / "model"
    script = (
        "import json, resource, sys\n"
        "from pathlib import Path\n"
        "from fledge.core.config import build\n"
        "from fledge.stages import sft\n"
        "from fledge.train import loop\n"
        "real = loop.save_snapshot\n"
        "def save(folder, step, *rest):\n"
        "    if step == 2:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "    return real(folder, step, *rest)\n"
        "loop.save_snapshot = save\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "sft.run(build(sft.Config, json.loads(sys.argv[1])), Path(sys.argv[2]))\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", script, json.dumps(small.config("sft", loop=loop)), str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode != 0
    assert "The last good snapshot is" in done.stderr
    assert "step-00000001" in done.stderr
    snapshots = tmp_path / ".model.partial" / "snapshots"
    assert [p.name for p in sorted(snapshots.glob("step-*"))] == ["step-00000001"]
    small.run("sft", out, loop=loop)
    same = (out / "model.safetensors").read_bytes() == (tmp_path / "quiet" / "model.safetensors").read_bytes()
    assert same
