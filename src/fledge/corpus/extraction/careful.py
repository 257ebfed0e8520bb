"""Extraction in a child process: a page that hangs the extractor, or kills it, costs itself.

The child reads pages from its standard input and answers on its standard output, each as a length and JSON. It is
started at the first page, and again after it hung or died. A child whose parent is gone ends: its input does, or,
where it hangs, an alarm that only the kernel handles.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from typing import IO, Any

from fledge.core.errors import ConfigError

_LENGTH = struct.Struct(">Q")
_START_SECONDS = 120.0  # for a child to import its extractor, on a machine that is busy
_ORPHAN_SECONDS = 10  # beyond the limit of a page: the parent would have ended the child by then
_LEAVE_SECONDS = 0.2  # to end by itself, when its input has
_PAGES = 2000  # of one child: trafilatura has a history of growing (its issues 216 and 704)
_MEMORY = 4 << 30  # address space of a child, in bytes


class ExtractionError(Exception):
    """``rule`` is what the ledger calls it: ``timeout``, ``crash`` or ``parser``."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule


class Child:
    """One extractor (``by``: resiliparse or trafilatura) in a process of its own. Not for two threads at a time."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], Any] = lambda: None
        self._pages = 0

    def extract(self, html: str, seconds: float) -> tuple[str, str]:
        """(text, title).

        Raises `ExtractionError` where the page took longer than ``seconds``, where the child died of it, or where the
        extractor could not read it; `ConfigError` where the extractor is not installed.
        """
        process = self._ready()
        self._pages += 1
        until = time.monotonic() + seconds
        try:
            _send(process.stdin, {"html": html, "seconds": seconds}, until)
            answer = _receive(process.stdout, until)
        except TimeoutError:
            self.close()
            raise ExtractionError("timeout", f"{self.by} took more than {seconds:g} s (extract.seconds)") from None
        except (EOFError, OSError, ValueError):
            code = self.close()
            raise ExtractionError("crash", f"{self.by} died of it, with exit status {code}") from None
        if "error" in answer:
            raise ExtractionError("parser", f"{self.by}: {answer['error']}")
        return answer["text"], answer["title"]

    def close(self) -> int | None:
        """End the child; its exit status."""
        process, self.process = self.process, None
        if process is None:
            return None
        self._end()
        return process.returncode

    def _ready(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self._pages < _PAGES:
            return self.process
        self.close()
        self._pages = 0
        command = [sys.executable, "-c", f"from fledge.corpus.extraction.careful import serve; serve({self.by!r})"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._end = weakref.finalize(self, _end, self.process)
        try:
            hello = _receive(self.process.stdout, time.monotonic() + _START_SECONDS)
        except (EOFError, OSError, TimeoutError, ValueError) as error:
            raise ExtractionError("crash", f"{self.by} did not start: {error}, status {self.close()}") from None
        if "missing" in hello:
            self.close()
            raise ConfigError(
                f"extract.by: {self.by} is not installed ({hello['missing']}): pip install 'fledge[careful]'"
            )
        return self.process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a child go that has nothing to do, and kill one that goes on."""
    with contextlib.suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        process.wait(_LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _send(pipe: IO[bytes] | None, value: dict[str, Any], until: float) -> None:
    """Write within the time: a child that hangs does not empty its pipe."""
    assert pipe is not None
    data = json.dumps(value).encode("ascii")
    left = memoryview(_LENGTH.pack(len(data)) + data)
    os.set_blocking(pipe.fileno(), False)
    while left:
        if not select.select([], [pipe], [], max(0.0, until - time.monotonic()))[1]:
            raise TimeoutError
        left = left[os.write(pipe.fileno(), left) :]


def _receive(pipe: IO[bytes] | None, until: float) -> dict[str, Any]:
    (length,) = _LENGTH.unpack(_read(pipe, _LENGTH.size, until))
    answer: dict[str, Any] = json.loads(_read(pipe, length, until))
    return answer


def _read(pipe: IO[bytes] | None, size: int, until: float) -> bytes:
    assert pipe is not None
    data = bytearray()
    while len(data) < size:
        if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        piece = os.read(pipe.fileno(), min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def serve(by: str) -> None:
    """The child's side: answers pages until its input ends."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    try:
        extract = _extractor(by)
    except ImportError as error:
        _answer(answers, {"missing": str(error)})
        return
    _answer(answers, {"ready": by})
    while len(head := source.read(_LENGTH.size)) == _LENGTH.size:
        page = json.loads(source.read(_LENGTH.unpack(head)[0]))
        signal.alarm(int(page["seconds"]) + _ORPHAN_SECONDS)
        try:
            text, title = extract(page["html"])
            answer = {"text": text, "title": title}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        signal.alarm(0)
        _answer(answers, answer)


def _answer(pipe: IO[bytes], value: dict[str, Any]) -> None:
    data = json.dumps(value).encode("ascii")
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _extractor(by: str) -> Any:
    if by == "resiliparse":
        from fledge.corpus.extraction.main_text import main_text

        return main_text
    import trafilatura  # noqa: F401  (missing, it is told before the first page)

    from fledge.corpus.extraction.main_text import careful_text

    return careful_text
