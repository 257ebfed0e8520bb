"""Promise 6: kill -9 at any moment, start again with the same command: the same weights, bit for bit."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from pathlib import Path

import pytest
from stages_small import Small

from fledge.core.errors import FledgeError
from fledge.core.machine import bf16_instructions, cxx_compiler
from fledge.core.native import small_products
from fledge.model.compiled import compiled

STAGES = ("pretrain", "sft", "reward", "dpo", "online-dpo", "ppo", "grpo")
IN_A_ROLLOUT = {"updates": 4, "beta": 0.05}  # a snapshot every 2 steps: in the middle of each
VARIANTS = ("rloo", "gspo")


def weights(out: Path) -> str:
    """A hash, of all models that were written: pytest shall not draw up the difference of megabytes."""
    files = sorted(out.rglob("model.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def steps_done(out: Path) -> int:
    path = out.parent / f".{out.name}.partial" / "metrics.jsonl"
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0


def newest_snapshot(out: Path) -> str:
    folders = sorted((out.parent / f".{out.name}.partial" / "snapshots").glob("step-*"))
    return folders[-1].name if folders else ""


def kill_after(small: Small, stage: str, out: Path, step: int, **options: object) -> None:
    """Start the stage and kill -9 it as soon as it has done ``step`` steps."""
    process = small.start(stage, out, **options)
    while steps_done(out) < step and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()
    assert process.returncode == -signal.SIGKILL, output[-2000:]
    assert not out.exists()


def kill_in_snapshot(small: Small, stage: str, out: Path, **options: object) -> None:
    """Kill -9 at the moment in which a new snapshot's folder appears, before the pointer names it."""
    before = newest_snapshot(out)
    process = small.start(stage, out, **options)
    while newest_snapshot(out) == before and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()


def finish(small: Small, stage: str, out: Path, **options: object) -> None:
    process = small.start(stage, out, **options)
    output = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]


@pytest.mark.parametrize("stage", STAGES)
def test_one_kill(stage: str, small: Small, tmp_path: Path) -> None:
    finish(small, stage, tmp_path / "quiet")
    kill_after(small, stage, tmp_path / "killed", 3)
    finish(small, stage, tmp_path / "killed")
    assert weights(tmp_path / "killed") == weights(tmp_path / "quiet")
    rows = [
        (tmp_path / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for name in ("quiet", "killed")
    ]
    for one, other in zip(*rows, strict=True):  # the log, too, is that of the quiet run, but for times
        a, b = json.loads(one), json.loads(other)
        assert {k: v for k, v in a.items() if "second" not in k} == {k: v for k, v in b.items() if "second" not in k}


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_of_compiled_training(stage: str, small: Small, tmp_path: Path) -> None:
    """Passes, attention over tiles, the head, decoding: what is compiled computes the same after a new start."""
    if not cxx_compiler():
        pytest.skip("there is no C++ compiler")
    options = {"compile": "on", "dtype": "bfloat16" if bf16_instructions() else "float32"}
    finish(small, stage, tmp_path / "quiet", **options)
    metrics = json.loads((tmp_path / "quiet" / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["compiled"] == (["passes", "attention", "head"] if small_products() else ["passes"])
    kill_after(small, stage, tmp_path / "killed", 3, **options)
    finish(small, stage, tmp_path / "killed", **options)
    assert weights(tmp_path / "killed") == weights(tmp_path / "quiet")


@pytest.mark.long
@pytest.mark.parametrize("variant", ["reinforce", "rloo", "gspo"])
def test_a_kill_in_the_middle_of_a_rollout(variant: str, small: Small, tmp_path: Path) -> None:
    """Answers that wait for their update, the running mean, the reference's part in rewards: all are state."""
    options = {"variant": variant, **IN_A_ROLLOUT}
    finish(small, "grpo", tmp_path / "quiet", **options)
    kill_after(small, "grpo", tmp_path / "killed", 3, **options)
    finish(small, "grpo", tmp_path / "killed", **options)
    assert weights(tmp_path / "killed") == weights(tmp_path / "quiet")


@pytest.mark.long
@pytest.mark.parametrize("what", [*STAGES, *VARIANTS, "merging"])
def test_three_kills_and_one_in_a_snapshot(what: str, small: Small, tmp_path: Path) -> None:
    stage, options = what, dict[str, object]()
    if what in VARIANTS:
        stage, options = "grpo", {"variant": what, **IN_A_ROLLOUT}
    elif what == "merging":  # a snapshot every 2 steps and a merge every 3: the start of a merge is state, too
        stage, options = "online-dpo", {"optimizer": {"lr": 1e-3, "merging": small.merging(every=3)}}
    finish(small, stage, tmp_path / "quiet", **options)
    manifest = json.loads((tmp_path / "quiet" / "manifest.json").read_text(encoding="utf-8"))
    total = int(manifest["metrics"]["steps"])
    out = tmp_path / "killed"
    kill_in_snapshot(small, stage, out, **options)
    for step in sorted(random.Random(what).sample(range(1, total - 1), 3)):
        kill_after(small, stage, out, step, **options)
    finish(small, stage, out, **options)
    assert weights(out) == weights(tmp_path / "quiet")


def test_interrupt_saves_and_goes_on(small: Small, tmp_path: Path) -> None:
    """Ctrl-C ends after the step in progress with a snapshot of it; the same command goes on from there."""
    finish(small, "sft", tmp_path / "quiet")
    out = tmp_path / "stopped"
    process = small.start("sft", out)
    while steps_done(out) < 1 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert newest_snapshot(out)
    finish(small, "sft", out)
    assert weights(out) == weights(tmp_path / "quiet")


def test_changed_configuration_is_refused(small: Small, tmp_path: Path) -> None:
    """Neither a half-made nor a finished artefact is touched by a run that would make another."""
    out = tmp_path / "model"
    kill_after(small, "sft", out, 2)
    with pytest.raises(FledgeError, match=r"(?s)batch_size: was 8, is 9.*--redo"):
        small.run("sft", out, batch_size=9)
    small.run("sft", out)
    before = weights(out)
    with pytest.raises(FledgeError, match=r"(?s)batch_size: was 8, is 9.*--redo"):
        small.run("sft", out, batch_size=9)
    assert weights(out) == before


@pytest.mark.long
def test_a_compiled_stage_leaves_nothing_behind(small: Small, tmp_path: Path) -> None:
    """The next stage of a recipe, in the same process, computes as one that is run alone."""
    if not cxx_compiler():
        pytest.skip("there is no C++ compiler")
    assert small.run("sft", tmp_path / "model", compile="on")["metrics"]["compiled"]
    assert compiled() == []
