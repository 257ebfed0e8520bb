"""What a run leaves behind of its numbers: one JSON object a step, and TensorBoard events where that is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from fledge.train.mesh import Mesh

FILE = "metrics.jsonl"


class Metrics:
    """Appends rows. On resume, rows after the snapshot's step are cut off: they will be made again."""

    def __init__(self, folder: Path, step: int, state: Mapping[str, Any] | None, mesh: Mesh, tensorboard: bool) -> None:
        self.path = folder / FILE
        self.mesh = mesh
        self.tokens = float(state["tokens"]) if state else 0.0
        self.last: dict[str, float] = dict(state["last"]) if state else {}
        self.writer: Any = None
        if mesh.first:
            _cut_after(self.path, step)
            self.file = self.path.open("a", encoding="utf-8")
            if tensorboard and importlib.util.find_spec("tensorboard") is not None:
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self.mark = time.monotonic()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.mesh.first:
            self.file.close()
            if self.writer is not None:
                self.writer.close()

    def add(self, step: int, row: Mapping[str, float], seconds: float) -> None:
        """``seconds`` since the run began, over all its processes."""
        now = time.monotonic()
        self.tokens += row.get("batch_tokens", 0.0)
        rate = row.get("batch_tokens", 0.0) / max(1e-9, now - self.mark)
        self.mark = now
        full = {"step": step, "tokens": self.tokens, **row, "seconds": seconds, "tokens_per_second": rate}
        self.last = {**self.last, **full}
        if not self.mesh.first:
            return
        self.file.write(json.dumps({k: _rounded(v) for k, v in full.items()}) + "\n")
        self.file.flush()
        if self.writer is not None:
            for key, value in row.items():
                self.writer.add_scalar(key, value, step)

    def state(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "last": self.last}

    def summary(self) -> dict[str, Any]:
        return {key: _rounded(value) for key, value in self.last.items()}


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run; a last line cut by a kill is left out."""
    rows = []
    path = folder / FILE
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows


def _cut_after(path: Path, step: int) -> None:
    rows = [row for row in read_metrics(path.parent) if row["step"] <= step]
    if not path.exists():
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(temporary, path)


def _rounded(value: float) -> float:
    return float(f"{value:.7g}") if isinstance(value, float) else value
