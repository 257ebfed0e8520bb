"""A worker under watch: a document that hangs or kills it costs that document, not the shard.

The worker says what it is about to do. Where a chunk takes longer than a document may, or the worker dies in it, the
chunk is done again item by item, each announced: then it is known which one it is. A document that hangs goes to the
ledger as ``timeout``, one at which the process dies three times in a row as ``crash``; the shard goes on behind its
last chunk.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import fledge
from fledge.core import errors
from fledge.core.errors import ArtefactError, DataError
from fledge.corpus.chain import ChainConfig
from fledge.corpus.reading.inputs import Shard
from fledge.corpus.running.results import Counts
from fledge.corpus.running.task import Lost, Trouble, describe, draft_of, no_room
from fledge.corpus.running.worker import shard_to_plain

COMMAND = [sys.executable, "-P", "-m", "fledge.corpus.running.worker"]
CRASHES = 3  # in a row at the same document: fewer may be chance, as when others need the memory
RECYCLE_CHUNKS = 400  # about 100,000 documents; what libraries leak ends with the process
_FRUITLESS = 10  # attempts at a shard that got no further
_POLL = 0.25  # seconds
_WAITS = 5  # times its limit by the clock, for what hangs without computing
# Work is spread over processes; threads of libraries inside them would only stand in each other's way.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")

Step = Callable[[int, int], Any]  # (items judged, bytes of the shard read so far), after each chunk


class Stopped(Exception):
    """The run ends: an error elsewhere, or the user."""


class _SetBack(Exception):
    """The worker is gone, or had to be killed. ``doing`` is the last that it said."""

    def __init__(self, doing: dict[str, Any], hung: bool, status: int) -> None:
        super().__init__()
        self.doing, self.hung, self.status = doing, hung, status


@dataclass(frozen=True)
class Job:
    """What all tasks of a run have in common. ``folder`` must be seen by whoever works on it."""

    config: ChainConfig
    folder: Path
    seconds: float  # of the processor's time that one document may take


class Worker:
    """One process at a time, started when needed and again when it is gone. To be closed by its user."""

    def __init__(self, job: Job, stop: threading.Event | None = None) -> None:
        self.job = job
        self.stop = stop or threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._chunks = 0  # of this process

    def run(self, shard: Shard, step: Step) -> Counts:
        """`fledge.corpus.running.task.run_shard` in the process, as many attempts as it takes.

        Raises what the task raises; `DataError` for a document that hangs or kills where ``on_error`` is ``fail``, and
        for a shard at which worker after worker dies.
        """
        fruitless = 0

        def counted(items: int, bytes_: int) -> None:
            nonlocal fruitless
            fruitless = 0
            self._chunks += 1
            step(items, bytes_)

        while True:
            try:
                counts = self._attempt(shard, counted)
            except _SetBack as back:
                fruitless = 0 if self._note(shard, back) else fruitless + 1
                if fruitless == _FRUITLESS:
                    raise _hopeless(shard, back) from None
                continue
            if self._chunks >= RECYCLE_CHUNKS:
                self.close()
            return counts

    def close(self, at_once: bool = False) -> None:
        """End the process: when it has nothing to do, or in the middle of it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        if at_once:
            process.kill()
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._buffer, self._chunks = b"", 0

    def _attempt(self, shard: Shard, step: Step) -> Counts:
        process = self._started()
        doing: dict[str, Any] = {"doing": "start"}
        try:
            self._tell(shard_to_plain(shard))
            while True:
                limited = doing["doing"] in ("read", "extract")
                message = self._hear(self.job.seconds if limited else float("inf"))
                if message is None:
                    raise _SetBack(doing, True, 0)
                if "doing" in message:
                    doing = message
                elif "items" in message:
                    step(message["items"], message["bytes"])
                elif "done" in message:
                    counts: Counts = message["done"]
                    return counts
                else:
                    raise _error(message)
        except BaseException as error:
            self.close(at_once=True)
            if isinstance(error, EOFError):
                raise _SetBack(doing, False, process.returncode) from None
            raise

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # A group of its own: Ctrl-C in a terminal reaches the parent alone, which ends its workers.
            self._process = subprocess.Popen(
                COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), process_group=0, bufsize=0
            )
            config = self.job.config.model_dump_json()
            with suppress(EOFError):  # it died at once, which is found out when it is given work
                self._tell({"config": config, "folder": str(self.job.folder), "parent": os.getpid()})
        return self._process

    def _tell(self, message: dict[str, Any]) -> None:
        """Raises `EOFError` where the process is gone."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
        except BrokenPipeError:
            raise EOFError from None

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None where there is none in time. Raises `EOFError` where there will be none,
        and `Stopped`."""
        assert self._process is not None
        assert self._process.stdout is not None
        waited, spent_before = 0.0, self._cpu_seconds()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if self.stop.is_set():
                    raise Stopped
                began = time.monotonic()
                if selector.select(_POLL):
                    piece = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not piece:
                        raise EOFError
                    self._buffer += piece
                    continue
                # A machine that slept, or a parent that was stopped, is not the document's time.
                waited += min(time.monotonic() - began, 4 * _POLL)
                if self._cpu_seconds() - spent_before > seconds or waited > _WAITS * seconds:
                    return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _cpu_seconds(self) -> float:
        """Of the worker. A machine that is busy with something else does not make a document slow."""
        assert self._process is not None
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:  # it is gone, which is found out when it is heard
            return 0.0
        return float(times.user + times.system)

    def _note(self, shard: Shard, back: _SetBack) -> bool:
        """Write down what the attempt died of, for the next one. Whether a document was given up."""
        draft = draft_of(self.job.folder, shard)
        trouble = Trouble.read(draft)
        item = back.doing.get("item")
        lost = None
        if item is None:
            trouble.careful = back.doing.get("chunk", trouble.careful)
        else:
            stage, part = back.doing["doing"], back.doing["part"]
            crashes = trouble.crashes.get(item, 0) + (not back.hung)
            trouble.crashes = {item: crashes}
            if back.hung:
                lost = Lost(stage, part, "timeout", self.job.seconds, self.job.seconds)
            elif crashes >= CRASHES:
                lost = Lost(stage, part, "crash", crashes, CRASHES)
        if lost is not None and item is not None:
            if self.job.config.on_error == "fail":
                place = back.doing["place"]
                raise DataError(f"{place}: {describe(lost)}\n  (on_error=skip counts it in the ledger and goes on)")
            trouble.lost[item] = lost
        try:
            trouble.write(draft)
        except OSError as error:
            raise no_room(self.job.folder, error) or error from None
        return lost is not None


def _environment() -> dict[str, str]:
    """This one's, with the package that runs here found first."""
    source = str(Path(fledge.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": path}


def _error(message: dict[str, Any]) -> Exception:
    kind = getattr(errors, message["error"], None) if message["error"] else None
    return kind(message["text"]) if kind else RuntimeError(f"a corpus worker failed:\n{message['text']}")


def _hopeless(shard: Shard, back: _SetBack) -> ArtefactError:
    names = ", ".join(part.label for part in shard.parts[:3]) + (", ..." if len(shard.parts) > 3 else "")
    end = signal.Signals(-back.status).name if back.status < 0 else f"exit status {back.status}"
    what = "hung" if back.hung else f"died ({end})"
    return ArtefactError(
        f"shard {shard.index} ({names}): its worker {what} {_FRUITLESS} times without getting further, the last time "
        f"in {back.doing['doing']!r}. What it printed stands above; with too little memory, fewer workers may do."
    )
