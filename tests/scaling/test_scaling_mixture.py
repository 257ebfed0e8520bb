"""`fledge mixture` end to end, on sources of which one is known to be the best."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fledge.core.artefact import read_manifest
from fledge.core.bench import Bench
from fledge.core.config import build, read_yaml
from fledge.core.errors import ConfigError
from fledge.core.readers import write_jsonl
from fledge.core.records import Document
from fledge.recipe import stage_module
from fledge.scaling import mixture
from fledge.stages import pretrain

# Two languages without a word in common; what is asked for is the second one's held-out text.
WORDS = {"alpha": ["ba", "be", "bi", "bo", "bu"], "omega": ["ka", "ke", "ki", "ko", "ku"]}


def sentences(source: str, count: int, seed: int) -> list[Document]:
    import random

    generator = random.Random(f"{source} {seed}")
    words = WORDS[source]
    rows = []
    for number in range(count):
        at = generator.randrange(len(words))
        text = []
        for _ in range(40):  # each word is followed by one of two
            at = (at * 2 + generator.randrange(2)) % len(words)
            text.append(words[at])
        rows.append(Document(text=" ".join(text), source=f"{source}/{number}", language="en"))
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixture")
    write_jsonl(root / "text.jsonl", [*sentences("alpha", 900, 0), *sentences("omega", 300, 0)])
    stages: dict[str, dict[str, Any]] = {
        "tokenizer": {"documents": str(root / "text.jsonl"), "vocab_size": 320},
        "shards": {"documents": str(root / "text.jsonl"), "tokenizer": str(root / "tokenizer"), "held_out": 0.1},
    }
    for name, values in stages.items():
        module = stage_module(name)
        module.run(build(module.Config, values), root / name)
    return root


def config_of(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "shards": str(folder / "shards"), "tokenizer": str(folder / "tokenizer"), "proxies": 12, "steps": 12,
        "batch_tokens": 512, "context": 64, "held_out_tokens": 1500, "simulated": 2000, "averaged": 16, "confirmed": 1,
        "dtype": "float32", "targets": [{"name": "omega", "sources": ["omega"]}], **changes,
    }  # fmt: skip


def run(folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    mixture.run(build(mixture.Config, config_of(folder, **changes)), out)
    metrics: dict[str, Any] = read_manifest(out)["metrics"]
    return metrics


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps(config_of(folder)), encoding="utf-8")
    command = [sys.executable, "-c", "from fledge.cli import main; main()", "mixture", str(file), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


@pytest.mark.long
def test_the_source_of_the_target_gets_the_tokens(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run(folder, tmp_path / "found")
    found = dict(zip(metrics["names"], metrics["found"], strict=True))
    assert metrics["natural"] == pytest.approx([0.75, 0.25], abs=0.02)
    assert found["omega"] > 0.7
    assert metrics["spearman"] > 0.6  # of few unseen mixtures: each pair that changes places costs 0.1
    assert metrics["confirmed"]["found"][0] < metrics["confirmed"]["natural"][0]
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "manifest.json", "mixture.svg", "mixture.yaml", "result.json",
    ]  # fmt: skip
    assert "Spearman" in capsys.readouterr().out
    # what is written is what pretraining takes
    settings = {
        "shards": str(folder / "shards"), "tokenizer": str(folder / "tokenizer"), "model": {"size": "nano"},
        "tokens": 2048, "batch_tokens": 512, "context": 64,
    }  # fmt: skip
    whole = read_yaml(tmp_path / "found" / "mixture.yaml") | settings
    for values in (whole, {**settings, "mixture_from": str(tmp_path / "found")}):
        out = tmp_path / f"model-{len(values)}-{'mixture' in values}"
        pretrain.run(build(pretrain.Config, values), out)
        rows = read_manifest(out)["metrics"]["mixture"]
        share = sum(row["tokens"] for row in rows if row["source"] == "omega") / sum(row["tokens"] for row in rows)
        assert share == pytest.approx(found["omega"], abs=0.06)


@pytest.mark.long
def test_a_kill(folder: Path, tmp_path: Path) -> None:
    """Killed among the proxies and started again: what was trained stays, and the answer is that of the quiet run."""
    quiet = start(folder, tmp_path / "quiet")
    output = quiet.communicate(timeout=300)[0]
    assert quiet.returncode == 0, output[-3000:]
    losses = tmp_path / ".killed.partial" / "losses"
    for wanted in (3, 8):
        process = start(folder, tmp_path / "killed")
        while len(list(losses.glob("*.json"))) < wanted and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    first = (losses / "0000.json").stat().st_mtime_ns
    last = start(folder, tmp_path / "killed")
    while len(list(losses.glob("*.json"))) < 10 and last.poll() is None:
        time.sleep(0.01)
    assert (losses / "0000.json").stat().st_mtime_ns == first
    output = last.communicate(timeout=300)[0]
    assert last.returncode == 0, output[-3000:]
    assert "proxy 1 of 12" not in output
    for name in ("mixture.yaml", "mixture.svg"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"names": ["alpha", "omga"]}, r"no 'omga' among their sources \(known: \['alpha', 'omega'\]\)"),
        ({"axis": "languages"}, r"only \['en'\] is there"),
        ({"targets": [{"name": "x", "languages": ["zh"]}]}, "target 'x': .* holds no such documents"),
        ({"targets": [{"name": "x", "split": "train"}]}, "is what the proxies train on"),
        ({"tokens": 10**8}, "only 0 keep the bounds"),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    folder: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        run(folder, tmp_path / "out", **changes)


def test_the_forecast_counts_every_proxy(folder: Path) -> None:
    config = build(mixture.Config, config_of(folder))
    facts = mixture.estimate(config, Bench(measure=False))
    assert facts["proxies"] == 14
    assert facts["tokens"] == 14 * 12 * 512
    assert facts["seconds"] > 0
