"""The warden: reads jobs from standard input, forks confined cells for each, watches them, reports.

Frames on both sides: 4 bytes of length, little-endian, then JSON. A job is three frames: header, code,
tests; code and tests are read by the cells themselves, never by the warden, so that no cell finds them in the memory
that it was forked with.
"""

from __future__ import annotations

import builtins
import fcntl
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from . import DEVICES, cell, confine, rooms

_TICK = 0.05


def read_frame() -> bytes:
    """One frame of standard input, unbuffered: what follows belongs to somebody else. Raises EOFError at its end."""
    return _read_exactly(struct.unpack("<I", _read_exactly(4))[0])


def _read_exactly(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def write_frame(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    data = struct.pack("<I", len(data)) + data
    while data:
        data = data[os.write(1, data) :]


class Warden:
    """Runs jobs one after the other. `kind` says what surrounds it: bubblewrap, namespaces or landlock, the first two
    also as "... alone": without Landlock inside."""

    def __init__(self, kind: str, readable: list[str], base: str) -> None:
        self.kind, _, alone = kind.partition(" ")
        self.landlock, self.readable = not alone, readable
        # The file system at the base is bubblewrap's own: the room is all of it, so nothing beside it can be written.
        places = {"namespaces": "/tmp", "bubblewrap": base}
        self.room = places.get(self.kind) or os.path.join(base, "room")

    def run(self, header: dict[str, Any]) -> None:
        """Run one job in a fork of its own, which alone sees what it says, and reports it.

        A verdict quotes the tests that failed. In the warden's memory the next job, which often has the same tests,
        would be forked with it, and could find it there.
        """
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                confine.die_with_parent()
                write_frame(self._run(header))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _end_strays()
        if status:
            os._exit(1)  # the fork has said why

    def _run(self, header: dict[str, Any]) -> dict[str, Any]:
        """Fork the cells of one job, wait for the verdict or a limit, kill them, report."""
        self._empty_room(header)
        started = time.monotonic()
        with_tests = bool(header["entry"])
        output, output_in = os.pipe()
        verdict, verdict_in = os.pipe()
        calls, calls_in = os.pipe()
        values, values_in = os.pipe()
        null = os.open("/dev/null", os.O_RDWR)
        first = [calls, values_in] if with_tests else []
        code_cell = cell.run_candidate if with_tests else cell.run_program
        cells = [self._fork(header, [null, output_in, output_in, *first], code_cell)]
        if with_tests:
            rest = [null, null, null, values, calls_in, verdict_in]
            cells.append(self._fork(header, rest, lambda text: cell.run_tests(text, header["entry"])))
        else:
            read_frame()
        for descriptor in (output_in, verdict_in, calls, calls_in, values, values_in, null):
            os.close(descriptor)
        try:
            report = self._watch(header, cells, output, verdict, started)
        finally:
            statuses = _end(cells)
            os.close(output)
            os.close(verdict)
        report["exit"] = statuses[0]
        report["seconds"] = time.monotonic() - started
        return report

    def _empty_room(self, header: dict[str, Any]) -> None:
        if self.kind == "namespaces":
            confine.fresh_tmp(self.room, header["disk"])
            return
        os.makedirs(self.room, 0o700, exist_ok=True)
        rooms.empty(self.room)

    def _fork(self, header: dict[str, Any], descriptors: list[int], work: Callable[[str], None]) -> int:
        """Fork a cell whose descriptors 0, 1, ... are those given. Returns when it has read its frame."""
        ready, ready_in = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                self._become_cell(header, descriptors, ready_in, work)
            except SystemExit as end:
                _leave(end.code if isinstance(end.code, int) else int(end.code is not None))
            except BaseException:
                traceback.print_exc()
                _leave(99)
            _leave(0)
        os.close(ready_in)
        seen = os.read(ready, 1000)
        os.close(ready)
        if seen != b"x":
            raise RuntimeError(f"a cell could not be confined: {seen.decode('utf-8', 'replace')}")
        return pid

    def _become_cell(
        self, header: dict[str, Any], descriptors: list[int], ready: int, work: Callable[[str], None]
    ) -> None:
        confine.die_with_parent()
        os.setsid()
        text = read_frame().decode()  # while standard input is still the warden's
        os.chdir(self.room)
        # Out of the way of 0..n first, then to their places, then everything else is closed.
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 21) for descriptor in [*descriptors, ready]]
        for place, descriptor in enumerate(high[:-1]):
            os.dup2(descriptor, place)
        os.dup2(high[-1], 15)
        os.closerange(len(descriptors), 15)
        os.closerange(16, 4096)
        try:
            self._confine(header, len(descriptors) + 64)
        except OSError as problem:
            os.write(15, str(problem).encode())
            raise
        os.write(15, b"x")
        os.close(15)
        work(text)

    def _confine(self, header: dict[str, Any], files: int) -> None:
        confine.limit(header["memory"], header["cpu"], header["disk"], header["threads"], files)
        if self.kind != "none":
            found = self.landlock and confine.restrict_files([*self.readable, *DEVICES], [self.room, "/dev/null"])
            if not found and self.kind == "landlock":
                raise OSError("no Landlock, or one that cannot forbid to truncate files (before Linux 6.2)")
            confine.drop_privileges()
            confine.restrict_calls()
        os.environ.clear()

    def _watch(
        self, header: dict[str, Any], cells: list[int], output: int, verdict: int, started: float
    ) -> dict[str, Any]:
        """Collect output and verdict until the last cell is done or a limit is reached."""
        open_pipes = {output: bytearray(), verdict: bytearray()}
        needed = verdict if header["entry"] else output
        status = "done"
        total, next_look = 0, 0.0
        while needed in open_pipes or (not header["entry"] and not _has_ended(cells[0])):
            left = started + header["wall"] - time.monotonic()
            if left <= 0:
                status = "timeout"
                break
            for pipe in select.select(list(open_pipes), [], [], min(left, _TICK if open_pipes else 0.002))[0]:
                data = os.read(pipe, 1 << 16)
                if not data:
                    header.setdefault("texts", {})[pipe] = open_pipes.pop(pipe)
                    continue
                total += len(data)
                open_pipes[pipe] += data[: max(0, header["output"] - len(open_pipes[pipe]))]
            if total > header["output_limit"]:
                status = "output"
                break
            if self.kind != "namespaces" and time.monotonic() > next_look:
                next_look = time.monotonic() + _TICK
                if self._used(header["disk"], cells[0]) > header["disk"]:
                    status = "disk"
                    break
        texts = header.get("texts", {}) | open_pipes
        report: dict[str, Any] = {"status": status, "output": bytes(texts[output]).decode("utf-8", "replace")}
        if status == "done" and header["entry"]:
            try:
                report["verdict"] = json.loads(bytes(texts[verdict]))
            except ValueError:
                report["status"] = "no verdict"
        return report

    def _used(self, most: int, pid: int) -> int:
        """Bytes on disk. Files that are removed but open count against the file system where that is the job's own."""
        return rooms.used(self.room, most) + (0 if self.kind == "bubblewrap" else rooms.held(pid))


def _end(cells: list[int]) -> list[int]:
    """Kill the cells; exit statuses, negative for signals."""
    statuses = []
    for pid in cells:
        os.kill(pid, signal.SIGKILL)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return statuses


def _end_strays() -> None:
    """Kill all that is left in this process namespace, where it is ours, but us."""
    if os.getpid() != 1:
        return
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _leave(status: int) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    """Entry: `warden KIND BASE`, the readable paths in the first frame."""
    kind, base = sys.argv[1], sys.argv[2]
    readable = json.loads(read_frame())
    confine.machine()
    sys.path[:] = [path for path in sys.path if not path.endswith("/reward")]
    if kind.startswith("namespaces"):
        confine.unshare_all()
        child = os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
        confine.new_root(base, readable, DEVICES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    builtins.__dict__.update(exit=sys.exit, quit=sys.exit)  # scripts expect them; they are the site module's
    warden = Warden(kind, readable, base)
    write_frame({"status": "ready", "landlock": confine.landlock_version()})
    while True:
        try:
            header = json.loads(read_frame())
        except EOFError:
            return
        warden.run(header)
