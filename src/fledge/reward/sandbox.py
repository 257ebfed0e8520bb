"""Runs Python written by models, with tests, where it can do no harm (DESIGN: Hostile input; SPEC G.6).

Around the code stand, each inside the one before: a process of its own, started with an empty environment; bubblewrap,
or namespaces of our own (no network, no foreign processes, a root with nothing but the Python runtime), or neither;
Landlock (no files but the runtime and a room of its own); seccomp (no processes, sockets, signals, tracing); limits on
memory, processor time, files, output and wall time. seccomp with namespaces or Landlock is the least that is accepted:
otherwise `SandboxUnavailable`, unless the environment says FLEDGE_UNPROTECTED_CODE=1 (a machine that may be lost): then
the code runs as you, with limits only. Each job has a fork of its own that alone sees its verdict, so that nothing of
one job lies in the memory that the next is forked with.

Tests run in a second confined process that talks with the candidate in plain values (`jail.cell`), so a candidate
cannot forge its verdict. Values that can be passed: numbers, texts, bytes, lists, tuples, sets, dicts, ranges,
iterators. Under Landlock alone, names and sizes of files outside can be seen (stat), their content cannot.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import select
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fledge.core.errors import FledgeError
from fledge.reward.jail import DEVICES, rooms

KINDS = ("bubblewrap", "namespaces", "landlock")
ALONE = ("bubblewrap alone", "namespaces alone")  # without Landlock, as before Linux 6.2: tests ask for these
UNPROTECTED = "FLEDGE_UNPROTECTED_CODE"  # 1: run code where nothing can confine it
_GRACE = 5.0  # seconds that the warden may take beyond a job's own limit
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from jail import warden; warden.main()"


class SandboxUnavailable(FledgeError):
    """This machine cannot confine foreign code: skip what needs it, and say why."""


@dataclass(frozen=True)
class Limits:
    """Limits of one run. Bytes, seconds."""

    wall: float = 10.0
    cpu: int = 5
    memory: int = 512 << 20
    disk: int = 16 << 20
    threads: int = 16
    output: int = 1 << 16  # bytes that are kept
    output_limit: int = 4 << 20  # bytes at which the run is ended


@dataclass(frozen=True)
class Job:
    """Code to run: with `entry` and `tests`, the tests call the function `entry`; without, it runs as a script."""

    code: str
    entry: str = ""
    tests: str = ""
    limits: Limits = Limits()


@dataclass(frozen=True)
class Result:
    """What came of a job.

    `status`: done, timeout, output (too much), disk (too much), no verdict, broken. `exit`: of the code's process,
    negative for a signal. `passed`, `total`: tests. `output`: what the code wrote, cut to `Limits.output`.
    """

    status: str
    passed: int = 0
    total: int = 0
    failures: tuple[str, ...] = ()
    output: str = ""
    exit: int = 0
    seconds: float = 0.0

    @property
    def passed_all(self) -> bool:
        return self.status == "done" and self.total > 0 and self.passed == self.total

    @property
    def detail(self) -> str:
        """One line for people."""
        if self.status != "done":
            words = {"timeout": "took too long", "output": "wrote too much output", "disk": "wrote too much to disk"}
            return words.get(self.status, self.status)
        text = f"{self.passed} of {self.total} tests"
        return f"{text}; {self.failures[0]}" if self.failures else text


@dataclass(frozen=True)
class Protection:
    """What confines foreign code here: `kind` is one of KINDS, or none where that was asked for; `detail` says what
    else does, and why nothing better."""

    kind: str
    detail: str


# ---- doors -----------------------------------------------------------------------------------------------------------


def run_python(code: str, *, entry: str = "", tests: str = "", limits: Limits | None = None) -> Result:
    """Run one piece of code. See `Job`. Raises SandboxUnavailable."""
    return run_many([Job(code, entry, tests, limits or Limits())], workers=1)[0]


def run_many(jobs: Sequence[Job], *, workers: int = 2, kind: str | None = None) -> list[Result]:
    """Run jobs on `workers` processes; results in the order of the jobs.

    Each worker is one warm, confined interpreter that forks for each job. `kind` asks for one kind of protection
    (tests do); by default the best that works. Raises SandboxUnavailable.
    """
    if not jobs:
        return []
    kind = kind or protection().kind
    results: list[Result | None] = [None] * len(jobs)
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(len(jobs)):
        todo.put(place)
    problems: list[BaseException] = []

    def work() -> None:
        try:
            _work_off(jobs, todo, results, kind)
        except BaseException as problem:  # handed to the caller's thread
            problems.append(problem)
            while _next(todo) is not None:
                pass

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(jobs)) - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return [result for result in results if result is not None]


@functools.cache
def protection() -> Protection:
    """The best protection that works here, found by trying to break out. Raises SandboxUnavailable, saying why."""
    refused = []
    for kind in KINDS:
        try:
            gaps = probe(kind)
        except SandboxUnavailable as problem:
            refused.append(f"{kind}: {problem}")
            continue
        if not gaps:
            landlock = "" if kind == "landlock" else "Landlock where the kernel has it, "
            inner = f"with {landlock}seccomp and limits"
            return Protection(kind, "; ".join([inner, *refused]))
        refused.append(f"{kind}: not tight ({', '.join(gaps)})")
    if os.environ.get(UNPROTECTED) == "1":
        return Protection("none", f"limits of time and memory only, as {UNPROTECTED}=1 asks; " + "; ".join(refused))
    raise SandboxUnavailable(
        "this machine cannot confine code written by models, so it is not run. Install bubblewrap, or use a Linux "
        f"kernel with user namespaces or Landlock (6.2); on a machine that may be lost, {UNPROTECTED}=1 runs it all "
        "the same, as you. " + "; ".join(refused)
    )


_PROBE = """
def probe(path, host):
    import fcntl, os, signal, socket
    gaps = []
    def attempt(name, action):
        try:
            action()
        except Exception:
            return
        gaps.append(name)
    attempt("reads files", lambda: open(path).close())
    attempt("lists folders", lambda: os.listdir(host))
    attempt("writes files", lambda: open(host + "/fledge-probe", "w").close())
    attempt("opens sockets", lambda: socket.socket().close())
    attempt("starts processes", lambda: os._exit(0) if os.fork() == 0 else None)
    attempt("executes programs", lambda: os.execv("/bin/true", ["true"]))
    attempt("signals others", lambda: os.kill(os.getppid(), 0))
    attempt("signals others by a file's owner", lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid()))
    attempt("truncates files", lambda: os.truncate(path, 0))
    attempt("changes times of files", lambda: os.utime(path))
    for top in {"/", "/tmp", "/dev", "/dev/shm"} - {os.getcwd()}:
        attempt(f"leaves files in {top}", lambda: open(top + "/fledge-probe", "w").close())
    if os.environ:
        gaps.append("sees the environment")
    try:
        with open("note", "w") as file:
            file.write("x")
    except OSError as problem:
        gaps.append("has no room to write in: " + str(problem))
    return gaps
"""


def probe(kind: str) -> list[str]:
    """Ways out of a kind of protection: none if it is tight. Raises SandboxUnavailable if it does not start."""
    with tempfile.TemporaryDirectory(prefix="fledge-probe-") as folder:
        secret = Path(folder, "secret")
        secret.write_text("x")
        tests = f"gaps = probe({str(secret)!r}, {folder!r})\nassert not gaps, '|'.join(gaps)"
        result = run_many([Job(_PROBE, "probe", tests)], workers=1, kind=kind)[0]
    if result.passed_all:
        return []
    if result.status != "done":
        raise SandboxUnavailable(f"the probe ended with {result.detail}: {result.output[-300:]}")
    return result.failures[0].rpartition("AssertionError ")[2].split("|")


# ---- the warden's other side -----------------------------------------------------------------------------------------


def _work_off(jobs: Sequence[Job], todo: queue.SimpleQueue[int], results: list[Result | None], kind: str) -> None:
    place = _next(todo)
    while place is not None:
        with _warden(kind, max(job.limits.disk for job in jobs)) as warden:
            fresh = True
            while place is not None:
                result = results[place] = warden.run(jobs[place])
                broken = result.status == "broken"
                if broken and not fresh:
                    break  # perhaps by what ran before it: this one again, with a new warden
                place, fresh = _next(todo), False
                if broken:
                    break


def _next(todo: queue.SimpleQueue[int]) -> int | None:
    try:
        return todo.get_nowait()
    except queue.Empty:
        return None


@contextmanager
def _warden(kind: str, disk: int) -> Iterator[_Warden]:
    base = tempfile.mkdtemp(prefix=f"fledge-sandbox-{os.getpid()}-")
    try:
        warden = _Warden(kind, base, disk)
        try:
            yield warden
        finally:
            warden.close()
    finally:
        with suppress(OSError):
            rooms.empty(base)
        shutil.rmtree(base, ignore_errors=True)


class _Warden:
    """One warm, confined interpreter. `disk`: the most bytes that any of its jobs may write."""

    def __init__(self, kind: str, base: str, disk: int) -> None:
        readable = runtime_paths()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self._process = subprocess.Popen(
            _command(kind, base, readable, disk),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        self._send(json.dumps(readable).encode())
        if (hello := self._receive(20.0)) is None or hello.get("status") != "ready":
            reason = self._last_words()
            self.close()
            raise SandboxUnavailable(reason or "the confined interpreter did not start")

    def run(self, job: Job) -> Result:
        header = job.limits.__dict__ | {"entry": job.entry}
        for frame in (json.dumps(header).encode(), _utf8(job.code), _utf8(job.tests)):
            self._send(frame)
        report = self._receive(job.limits.wall + _GRACE)
        if report is None:
            return Result("broken", output=self._last_words())
        verdict = report.get("verdict", {})
        if "bad_tests" in verdict:
            verdict = {"failures": [verdict["bad_tests"]]}
        return Result(
            status=report["status"],
            passed=verdict.get("passed", 0),
            total=verdict.get("total", 0),
            failures=tuple(verdict.get("failures", ())),
            output=report["output"],
            exit=report["exit"],
            seconds=report["seconds"],
        )

    def close(self) -> None:
        """Kill the whole group; process 1 of a namespace takes everything in it along."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._errors.close()

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        data = struct.pack("<I", len(data)) + data
        try:
            while data:
                data = data[self._process.stdin.write(data) :]
        except BrokenPipeError:
            pass  # the missing answer says so

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + seconds
        head = self._read(4, deadline)
        body = self._read(struct.unpack("<I", head)[0], deadline) if head else None
        return None if body is None else json.loads(body)

    def _read(self, size: int, deadline: float) -> bytes | None:
        assert self._process.stdout is not None
        data = b""
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return None
            part = os.read(self._process.stdout.fileno(), size - len(data))
            if not part:
                return None
            data += part
        return data

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@functools.cache
def runtime_paths() -> list[str]:
    """What the Python runtime needs to read: its standard library and shared libraries. Not the site-packages of a
    virtual environment."""
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.join(sys.base_prefix, "lib")]
    paths += ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"]
    kept: list[str] = []
    for path in paths:
        if path and os.path.exists(path) and not any(path == one or path.startswith(one + "/") for one in kept):
            kept = [one for one in kept if not one.startswith(path + "/")] + [path]
    return kept


def _command(kind: str, base: str, readable: list[str], disk: int) -> list[str]:
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable(f"no sandbox for {sys.platform}")
    here = str(Path(__file__).resolve().parent)
    python = os.path.realpath(sys.executable)
    inner = [python, "-I", "-S", "-B", "-X", "utf8", "-c", _START, here, kind, base]
    if not kind.startswith("bubblewrap"):
        return inner
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise SandboxUnavailable("bwrap is not installed")
    # Nothing of its own can be written but the room at `base`: not /tmp, /dev or the root, where the next job would
    # find it. Landlock forbids it too, on kernels that have it.
    command = [bubblewrap, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    command += ["--cap-drop", "ALL", "--size", str(disk), "--tmpfs", base]
    for path in [*readable, python, os.path.join(here, "jail")]:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind", path, path]
    for path in DEVICES:
        command += ["--dev-bind", path, path]
    command += ["--remount-ro", "/"]
    return [*command, "--chdir", "/", *inner]
