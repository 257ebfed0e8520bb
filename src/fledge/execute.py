"""Running a plan: what is missing is run, what is done is skipped, what was interrupted goes on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fledge.core.artefact import DRAFT, is_finished, read_manifest, write_json
from fledge.core.errors import ArtefactError, ConfigError, Halt
from fledge.core.machine import ranks
from fledge.core.progress import duration
from fledge.recipe import Plan, Step
from fledge.report.collect import RUN_FILE

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What happened. ``report`` is None where the plan's caller asked for none."""

    ran: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    report: Path | None = None


class Interrupted(Exception):
    """Ctrl-C, with the stage that was running."""

    def __init__(self, step: Step, number: int, total: int) -> None:
        super().__init__(step.name)
        self.step, self.number, self.total = step, number, total


def execute(
    plan: Plan,
    *,
    redo: str | None = None,
    expected: Mapping[str, float] | None = None,
    say: Say = lambda line: None,
    report: bool = True,
) -> Outcome:
    """Run the plan. ``redo`` names a stage to make again, with all that depends on it; ``expected`` gives seconds.

    Raises `Interrupted` on Ctrl-C; started again, the plan goes on in the stage where it stopped. `Halt`, of a stage
    that forbids to go on, comes through when the report is written.
    """
    if ranks() > 1:
        raise ConfigError("a recipe runs as one process; under torchrun start its training stages, with `fledge STAGE`")
    plan.folder.mkdir(parents=True, exist_ok=True)
    with _only_one(plan.folder):
        if redo is not None:
            remove(plan, plan.dependents(redo), say)
        _record(plan)
        try:
            outcome = _run_steps(plan, dict(expected or {}), say)
        except Halt:
            if report:  # it shows what the chain was stopped for
                from fledge.report.run import write_report

                say(f"report: {write_report(plan.folder)}")
            raise
        if report:
            from fledge.report.run import REPORT, write_report

            outcome.report = plan.folder / REPORT
            if outcome.ran or not outcome.report.exists():
                write_report(plan.folder)
    return outcome


def pending(plan: Plan) -> list[Step]:
    """The stages that have no finished artefact yet."""
    return [step for step in plan.steps if not is_finished(step.folder)]


def remove(plan: Plan, names: list[str], say: Say) -> None:
    """Delete artefacts, finished or half-made, so that they are made again. Refuses a folder that is not one."""
    for name in names:
        folder = plan.folder / name
        partial = folder.parent / f".{folder.name}.partial"
        if folder.exists() and not is_finished(folder):
            raise ArtefactError(
                f"{folder}: is no artefact (it has no manifest), so --redo leaves it alone. Move it away."
            )
        known = (partial / DRAFT).exists() or is_finished(partial)
        if partial.exists() and not known and any(partial.iterdir()):
            raise ArtefactError(f"{partial}: is no half-made artefact, so --redo leaves it alone. Move it away.")
        if folder.exists() or partial.exists():
            say(f"removed {folder}, to make it again")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def _run_steps(plan: Plan, expected: dict[str, float], say: Say) -> Outcome:
    outcome = Outcome()
    total = len(plan.steps)
    width = max(len(step.name) for step in plan.steps)
    todo = [step.name for step in pending(plan)]
    clock = _Clock(expected, todo)
    if todo:
        say(f"{plan.name}: {total} stages in {plan.folder}, {total - len(todo)} done{clock.text(', about {} to go')}")
    started = time.monotonic()
    for number, step in enumerate(plan.steps, 1):
        label = f"[{number}/{total}] {step.name:<{width}}"
        fresh = not is_finished(step.folder)
        if fresh:
            half = (step.folder.parent / f".{step.folder.name}.partial" / DRAFT).exists()
            say(f"{label}  {'goes on' if half else 'starts'}{clock.stage(step.name)}{clock.text('; {} left in all')}")
        began = time.monotonic()
        try:
            step.module.run(step.config, step.folder)
        except KeyboardInterrupt:
            raise Interrupted(step, number, total) from None
        seconds = time.monotonic() - began
        if not is_finished(step.folder):
            raise ArtefactError(f"stage {step.name} ({step.stage}) ended without an artefact in {step.folder}")
        if fresh:
            outcome.ran.append(step.name)
            clock.finished(step.name, seconds)
            say(f"{label}  done in {duration(seconds)}")
        else:
            outcome.skipped.append(step.name)
            took = read_manifest(step.folder).get("seconds", 0)
            say(f"{label}  done before (it took {duration(took)})")
    outcome.seconds = time.monotonic() - started
    return outcome


class _Clock:
    """Time left: what was expected of the stages to come, corrected by how the finished ones compared."""

    def __init__(self, expected: dict[str, float], todo: list[str]) -> None:
        self.expected, self.todo = expected, list(todo)
        self.told = self.took = 0.0

    def finished(self, name: str, seconds: float) -> None:
        self.todo.remove(name)
        if name in self.expected:
            self.told += self.expected[name]
            self.took += seconds

    def left(self) -> float | None:
        """Seconds, or None where a stage to come has no estimate."""
        if not self.todo or any(name not in self.expected for name in self.todo):
            return None
        # Weighted towards no correction until a minute of work has been seen.
        pace = (self.took + 60.0) / (self.told + 60.0)
        return pace * sum(self.expected[name] for name in self.todo)

    def text(self, template: str) -> str:
        left = self.left()
        return "" if left is None else template.format(duration(left))

    def stage(self, name: str) -> str:
        return f", about {duration(self.expected[name])}" if name in self.expected else ""


def _record(plan: Plan) -> None:
    """What was asked for, for the report and for people: the resolved recipe beside its artefacts."""
    steps: list[dict[str, Any]] = [
        {"name": s.name, "stage": s.stage, "needs": list(s.needs), "config": s.config.plain()} for s in plan.steps
    ]
    value = {
        "name": plan.name,
        "recipe": plan.recipe,
        "seed": plan.seed,
        "variables": dict(plan.variables),
        "overrides": list(plan.overrides),
        "stages": steps,
    }
    write_json(plan.folder / RUN_FILE, value)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two processes in one run would write into the same half-made artefacts. The lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(
                f"{folder}: another process (id {holder}) is running this recipe here. Wait for it, or give --name."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
