"""The child of `symbols`: each comparison in a fork with limits of time and memory, confined where the kernel can."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from contextlib import suppress

from math_verify import LatexExtractionConfig, parse, verify

from fledge.core.records import Task
from fledge.reward.jail import confine

SECONDS = 5.0
_MEMORY = 2 << 30  # bytes of address space


def same(task: Task, answer: str) -> str:
    """equal, not equal, not understood, or why that could not be told."""
    inside, outside = os.pipe()
    pid = os.fork()
    if pid == 0:
        word = b"failed"
        with suppress(BaseException):
            _confine()
            word = _compared(str(task.answer["value"]), answer).encode()
        os.write(outside, word)
        os._exit(0)
    os.close(outside)
    try:
        ready, _, _ = select.select([inside], [], [], SECONDS)
        said = os.read(inside, 100).decode() if ready else f"no result in {SECONDS:g} seconds"
    finally:
        os.close(inside)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return said or "ended at its limit of memory or time"


def _compared(gold: str, answer: str) -> str:
    logging.disable(logging.CRITICAL)
    # LaTeX only: plain expressions would be evaluated as Python by sympy's parser.
    found = [parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None) for text in (gold, answer)]
    if not all(found):
        return "not understood"
    return "equal" if verify(found[0], found[1], timeout_seconds=None) else "not equal"


def _confine() -> None:
    """No files but Python's own, no network, no processes, where this kernel and machine can; limits everywhere."""
    confine.limit(_MEMORY, int(SECONDS), 0, 64, 64)
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError):  # a machine without a table of system calls: limits have to do
        confine.machine()
        confine.restrict_files([path for path in {*sys.path, sys.base_prefix} if os.path.isdir(path)], [])
        confine.drop_privileges()
        confine.restrict_calls()
