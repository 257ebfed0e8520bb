"""Progress of long work: rate and time left; a bar on a terminal, a sparse line otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PLAIN_INTERVAL = 15.0  # seconds between lines where there is no terminal


def duration(seconds: float) -> str:
    """``75`` -> ``1:15``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


class Bar:
    """What the work reports to."""

    def __init__(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = self.initial = done
        self.started = time.monotonic()
        self.note = ""

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        self.done += amount
        if note is not None:
            self.note = note
        self._show()

    def rate(self) -> float:
        """Units a second since this process began to work (not counting what an earlier one did)."""
        elapsed = time.monotonic() - self.started
        return (self.done - self.initial) / elapsed if elapsed > 0 else 0.0

    def left(self) -> float | None:
        """Seconds left, or None where it cannot be told."""
        rate = self.rate()
        return None if self.total is None or rate <= 0 else max(0.0, (self.total - self.done) / rate)

    def line(self) -> str:
        total = f"/{self.total:,.0f}" if self.total is not None else ""
        left = self.left()
        parts = [f"{self.description}: {self.done:,.0f}{total} {self.unit}", f"{_short(self.rate())} {self.unit}/s"]
        if left is not None:
            parts.append(f"{duration(left)} left")
        if self.note:
            parts.append(self.note)
        return "  ".join(parts)

    def _show(self) -> None:
        raise NotImplementedError

    def close(self, completed: bool) -> None:
        raise NotImplementedError


class _PlainBar(Bar):
    def __init__(self, description: str, total: float | None, unit: str, done: float) -> None:
        super().__init__(description, total, unit, done)
        self.shown = time.monotonic()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.shown >= PLAIN_INTERVAL:
            self.shown = now
            print(self.line(), file=sys.stderr, flush=True)

    def close(self, completed: bool) -> None:
        if completed:
            elapsed = time.monotonic() - self.started
            count = f"{self.done - self.initial:,.0f} {self.unit} in {duration(elapsed)}"
            print(f"{self.description}: {count}  {self.note}".rstrip(), file=sys.stderr, flush=True)


class _TerminalBar(Bar):
    def __init__(self, description: str, total: float | None, unit: str, done: float) -> None:
        super().__init__(description, total, unit, done)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.display = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[line]}"),
            console=Console(stderr=True), transient=False,
        )  # fmt: skip
        self.display.start()
        self.task = self.display.add_task(description, total=total, completed=int(done), line="")

    def _show(self) -> None:
        text = self.line().removeprefix(f"{self.description}: ")
        self.display.update(self.task, completed=self.done, line=text)

    def close(self, completed: bool) -> None:
        self.display.stop()


@contextmanager
def progress(description: str, total: float | None, unit: str = "it", done: float = 0) -> Iterator[Bar]:
    """Show progress of a block of work. ``done`` is what an earlier, interrupted process had finished."""
    bar: Bar
    if sys.stderr.isatty():
        bar = _TerminalBar(description, total, unit, done)
    else:
        bar = _PlainBar(description, total, unit, done)
    completed = False
    try:
        yield bar
        completed = True
    finally:
        bar.close(completed)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
