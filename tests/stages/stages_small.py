"""A very small world, taken through the real stages once: what the training stages are tested on."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fledge.core.config import build
from fledge.recipe import stage_module

NANO = {"size": "nano"}


@dataclass(frozen=True)
class Small:
    """Folders of the small world's artefacts, and configurations of the training stages on them."""

    root: Path

    def at(self, name: str) -> str:
        return str(self.root / name)

    def config(self, stage: str, **changes: Any) -> dict[str, Any]:
        loop = {"micro_tokens": 1024, "snapshot_steps": 2, "snapshot_seconds": 1e9, "tensorboard": False}
        common = {"optimizer": {"lr": 1e-3}, "loop": loop, "dtype": "float32", "seed": 3}
        model = self.at("pretrain")
        replay = {"data": [self.at("world/sft.jsonl")], "batch_size": 3}
        own: dict[str, Any] = {
            "pretrain": {
                "shards": self.at("shards"), "tokenizer": self.at("tokenizer"), "model": NANO, "context": 64,
                "batch_tokens": 512, "tokens": 5120, "held_out_tokens": 500,
            },
            "sft": {"model": model, "data": [self.at("world/sft.jsonl")], "batch_size": 8, "epochs": 0.6},
            "reward": {
                "model": model, "data": [self.at("world/preferences.jsonl")], "batch_size": 4, "epochs": 1.5,
                "balance": "skill", "language": 0.1, "centre": 0.01, "held_out": 0.2,
            },
            "dpo": {
                "model": model, "data": [self.at("world/preferences.jsonl")], "batch_size": 4, "epochs": 0.8,
                "replay": replay,
            },
            "online-dpo": {
                "model": model, "tasks": [self.at("sums.jsonl")], "steps": 6, "missing_end_penalty": 0.1,
                "rollout": {"prompts": 4, "samples": 3, "max_new_tokens": 12, "leave_out": []}, "replay": replay,
                "optimizer": {"lr": 1e-3, "merging": self.merging(every=2)},
            },
            "grpo": {
                "model": model, "tasks": [self.at("sums.jsonl")], "steps": 8, "updates": 2, "beta": 0.01,
                "rollout": {"prompts": 4, "samples": 3, "max_new_tokens": 12, "leave_out": []}, "replay": replay,
            },
            "ppo": {
                "model": model, "tasks": [self.at("sums.jsonl")], "steps": 8, "epochs": 2, "minibatches": 2,
                "value": {"optimizer": {"lr": 1e-3}, "warmup": 3}, "adaptive_kl": {"target": 1.0, "horizon": 100},
                "rollout": {"prompts": 4, "max_new_tokens": 12, "leave_out": []}, "replay": replay,
                "ptx": {"shards": self.at("shards"), "context": 64, "ratio": 1.0},
            },
        }[stage]  # fmt: skip
        return {**common, **own, **changes}

    def merging(self, **changes: Any) -> dict[str, Any]:
        return {"base": self.at("moved"), "sft": self.at("pretrain"), "alpha": 1e-3, "keep": 0.5, **changes}

    def run(self, stage: str, out: Path, **changes: Any) -> dict[str, Any]:
        """In this process; returns the manifest."""
        module = stage_module(stage)
        module.run(build(module.Config, self.config(stage, **changes)), out)
        manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        return manifest

    def start(self, stage: str, out: Path, **changes: Any) -> Started:
        """In a process of its own, through the command line."""
        file = out.parent / f"{out.name}.json"
        file.write_text(json.dumps(self.config(stage, **changes)), encoding="utf-8")  # JSON is YAML
        return Started([stage, str(file), "--out", str(out)], out.parent / f"{out.name}.output")


class Started:
    """The command line in a process of its own, forked from one that has imported torch and done nothing else: so it
    begins at once, and can be killed and interrupted as any other. What it prints goes to ``log``."""

    _server = multiprocessing.get_context("forkserver")
    _server.set_forkserver_preload(["fledge.cli", "fledge.stages.ppo", "fledge.stages.pretrain"])

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.log = log
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")  # of the server, when it is started, and so of all that it forks
            self._process = self._server.Process(target=_command_line, args=(arguments, str(log)))
            self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def communicate(self, timeout: float | None = None) -> str:
        """Waits for its end. -> what it printed"""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"{self.log}: still running after {timeout} s")
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


def _command_line(arguments: list[str], log: str) -> None:
    from fledge.cli import main

    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["fledge", *arguments]
    main()


def easy_tasks(path: Path) -> None:
    """Tasks that a model of a few steps sometimes solves by chance, so that groups have a spread."""
    with path.open("w", encoding="utf-8") as file:
        for index in range(12):
            row = {
                "id": f"easy-{index}", "messages": [{"role": "user", "content": f"{index}?"}],
                "verifier": "contains", "answer": {"any": [*list("aeiou"), "的", "是"]},
            }  # fmt: skip
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def moved_model(model: Path, out: Path) -> None:
    """A model with every weight a little off, in the place of one before fine-tuning."""
    import torch

    from fledge.model.hf import load_decoder, save_decoder

    decoder, generator = load_decoder(model), torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    save_decoder(decoder, out)
