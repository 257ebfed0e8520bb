"""The loop. Every training stage is a source of batches and an objective, handed to this.

A step: the source gives a global batch; the objective names its denominators; for each module that trains, each rank
cuts its share into micro-batches and adds their gradients; one update. Nothing else happens, in whatever stage.
"""

from __future__ import annotations

import json
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from pydantic import Field

from fledge.core.config import Config
from fledge.core.errors import DataError, FledgeError
from fledge.core.progress import progress
from fledge.model.compiled import compiled
from fledge.train.batch import Example, pack, shares
from fledge.train.mesh import Mesh, names_of_ranks, sum_over_ranks
from fledge.train.metrics import Metrics
from fledge.train.objective import Objective
from fledge.train.snapshot import load_snapshot, save_snapshot
from fledge.train.trainee import Trainee


class LoopConfig(Config):
    """What shapes a run beside its data and objective."""

    micro_tokens: int = Field(default=8192, gt=0, description="tokens of a micro-batch: memory, not mathematics")
    snapshot_seconds: float = Field(default=120.0, description="at most this much work is lost in a kill")
    snapshot_steps: int = Field(default=0, description="also after every so many steps; 0: by time alone")
    probe_steps: int = Field(default=0, description="measure on held-out data every so many steps; 0: at the end")
    tensorboard: bool = Field(default=True, description="also write TensorBoard events, where it is installed")


@dataclass
class GlobalBatch:
    """All examples of one step, of all ranks, in one order that depends on neither ranks nor token budget."""

    examples: Sequence[Example]
    metrics: dict[str, float] = field(default_factory=dict)


class Source(Protocol):
    """Where batches come from. May sample from the models in training."""

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch: ...

    def state(self) -> dict[str, Any]:
        """JSON: all that shapes what comes next."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...


Probe = Callable[[Mapping[str, Trainee]], dict[str, float]]


@dataclass
class Loop:
    """``run()`` trains to the end, from the latest snapshot in ``folder`` if there is one."""

    config: LoopConfig
    trainees: Mapping[str, Trainee]
    source: Source
    objective: Objective
    steps: int
    folder: Path
    title: str
    mesh: Mesh = field(default_factory=Mesh)
    probe: Probe | None = None

    def run(self) -> dict[str, Any]:
        """Returns the last step's metrics with totals."""
        self.folder.mkdir(parents=True, exist_ok=True)
        snapshots = self.folder / "snapshots"
        state = load_snapshot(snapshots, self.trainees, self.mesh)
        begin, seconds = 0, 0.0
        if state is not None:
            begin, seconds = int(state["step"]), float(state["seconds"])
            _compare(self.folder, state.get("compiled", []), compiled())
            self.source.load_state(state["source"])
        metrics = Metrics(self.folder, begin, state, self.mesh, self.config.tensorboard)
        started = saved = time.monotonic()

        def snapshot(step: int) -> None:
            elapsed = seconds + time.monotonic() - started
            extra = {"seconds": elapsed, "compiled": compiled(), "source": self.source.state(), **metrics.state()}
            save_snapshot(snapshots, step, self.trainees, extra, self.mesh)

        with progress(self.title, self.steps, "steps", begin) as bar, _stop_signals() as stopped, metrics:
            for step in range(begin, self.steps):
                row = self.step(step)
                last = step + 1 == self.steps
                every = self.config.probe_steps
                if self.probe is not None and (last or (every and (step + 1) % every == 0)):
                    row |= self.probe(self.trainees)
                metrics.add(step + 1, row, seconds + time.monotonic() - started)
                bar.advance(1, _note(row))
                due = time.monotonic() - saved >= self.config.snapshot_seconds
                due |= bool(self.config.snapshot_steps) and (step + 1) % self.config.snapshot_steps == 0
                due, stop = self._agree(due, bool(stopped))
                if (due and not last) or stop:
                    snapshot(step + 1)
                    saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt
            return metrics.summary()

    def step(self, step: int) -> dict[str, float]:
        """One update of every module that trains; the metrics of the global batch."""
        batch = self.source.next(step, self.trainees)
        denominators = self.objective.denominators(batch.examples)
        empty = [name for name, value in denominators.items() if not value > 0]
        if empty:
            raise DataError(f"step {step + 1}: nothing in this batch is trained on ({', '.join(empty)} is 0)")
        totals: dict[str, list[float]] = {}
        training = {name: trainee for name, trainee in self.trainees.items() if trainee.trains(step)}
        numbered = [replace(example, number=step << 32 | i) for i, example in enumerate(batch.examples)]
        for name in training:
            self.accumulate(name, numbered, denominators, totals)
        row = self.reduce(totals) | batch.metrics
        if not math.isfinite(row["loss"]):
            self._refuse(step, row["loss"], batch.examples)
        for name, trainee in self.trainees.items():
            result = trainee.step(step, self.steps) if name in training else {"lr": 0.0}
            if not math.isfinite(norm := result.get("grad_norm", 0.0)):
                self._refuse(step, norm, batch.examples)
            row |= {_prefix(name) + key: value for key, value in result.items()}
        row["batch_tokens"] = float(sum(example.tokens for example in batch.examples))
        row["trained_tokens"] = float(sum(example.trained for example in batch.examples))
        return row

    def accumulate(
        self, name: str, examples: Sequence[Example], denominators: Mapping[str, float], totals: dict[str, list[float]]
    ) -> None:
        """Add a module's gradients over this rank's share, and its sums to ``totals``."""
        trainee, prefix = self.trainees[name], _prefix(name)
        own = [example for example in examples if example.module in ("", name)]
        for part in shares(own, self.mesh.rank, self.mesh.world, self.config.micro_tokens):
            micro = pack(part, self.mesh.device)
            loss, parts, metrics = trainee.loss(micro, self.objective, denominators, name)
            loss.backward()
            trainee.collect()
            for key, value in parts.items():
                _add(totals, "loss", float(value), 0.0)
                if len(denominators) > 1:
                    _add(totals, f"loss_{key}", float(value), 0.0)
            for key, (total, count) in metrics.items():
                _add(totals, prefix + key, float(total), count)

    def reduce(self, totals: Mapping[str, list[float]]) -> dict[str, float]:
        """Sums over the ranks, each of which may lack names: where none of its share is replayed, say. A metric with a
        count becomes its mean. Weights ``x`` whose squares are given as ``x_square`` get ``x_ess``, the share of
        samples that they are worth: mean² / mean square (Kong 1992)."""
        names = names_of_ranks(list(totals), self.mesh)
        flat = sum_over_ranks([x for name in names for x in totals.get(name, (0.0, 0.0))], self.mesh)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        row = {
            name: total / count if count else total
            for name, (total, count) in zip(names, pairs, strict=True)
            if count or name.startswith("loss")
        }
        for name in [name for name in row if f"{name}_square" in row]:
            square = row.pop(f"{name}_square")
            row[f"{name}_ess"] = row[name] ** 2 / square if square else 0.0
        return row

    def _agree(self, due: bool, stopped: bool) -> tuple[bool, bool]:
        """Ranks snapshot together, when any of them finds it due, and stop together, when any of them is told to."""
        every = sum_over_ranks([float(due), float(stopped)], self.mesh)
        return every[0] > 0, every[1] > 0

    def _refuse(self, step: int, value: float, examples: Sequence[Example]) -> None:
        origins = [segment.origin for example in examples for segment in example.segments]
        path = self.folder / f"failed-step-{step + 1}.json"
        path.write_text(
            json.dumps({"step": step + 1, "value": str(value), "origins": origins}, ensure_ascii=False) + "\n"
        )
        raise FledgeError(
            f"step {step + 1}: the loss or its gradient is {value}; training stopped and the last snapshot was kept.\n"
            f"The documents of the batch ({len(origins)} segments) are listed in {path}.\n"
            "A lower optimizer.lr, or optimizer.clip, is the usual cure; look at the batch first."
        )


def _prefix(module: str) -> str:
    """Of a module's metrics; the policy's have none."""
    return "" if module == "policy" else f"{module}_"


def _add(totals: dict[str, list[float]], key: str, total: float, count: float) -> None:
    entry = totals.setdefault(key, [0.0, 0.0])
    entry[0] += total
    entry[1] += count


def _compare(folder: Path, before: Sequence[str], now: Sequence[str]) -> None:
    if before != now:
        then, today = (" and ".join(names) or "nothing" for names in (before, now))
        warnings.warn(
            f"{folder}: begun with {then} compiled, goes on with {today}: the last bits will differ", stacklevel=3
        )


def _note(row: Mapping[str, float]) -> str:
    shown = [f"loss {row['loss']:.4f}"]
    shown += [f"{key} {row[key]:.3f}" for key in ("reward", "accuracy", "bits_per_byte") if key in row]
    return " ".join(shown)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that the step in progress ends and is saved; a second one stops at once."""
    stopped: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    try:
        old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's business
        yield stopped
        return
    try:
        yield stopped
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
