"""A user's ``module:function`` in a process of its own: what raises, hangs or dies costs one answer, not the run.

The process is the user's own code with the user's rights, not a sandbox (that is `reward.sandbox`, for code that models
write). Calls and results travel as lines of JSON.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from fledge.core.errors import ConfigError, FledgeError
from fledge.core.records import Task

START_SECONDS = 120.0  # for the import of the user's module, which may load a model of its own
_SERVE = "from fledge.reward.functions import serve; serve()"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux' prctl


class FunctionFailed(FledgeError):
    """One call gave no result: it raised, took longer than its limit, or its process died."""


class Function:
    """``Function("module:function", seconds)(task, *arguments)``: JSON in, JSON out, at most so many seconds a call.

    Raises ConfigError, when made, where the function cannot be loaded; FunctionFailed for a call without a result.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._start()
        atexit.register(self.close)

    def __call__(self, task: Task, *arguments: Any) -> Any:
        if self._process is None:
            self._start()
        call = {"task": task.model_dump(mode="json"), "arguments": arguments}
        answer = self._ask(json.dumps(call).encode() + b"\n", self.seconds)
        if "error" in answer:
            raise FunctionFailed(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End the process; a later call starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process, self._rest = None, b""

    def _start(self) -> None:
        command = [sys.executable, "-c", _SERVE, self.name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        try:
            answer = self._ask(b"", START_SECONDS)
        except FunctionFailed as problem:
            raise ConfigError(f"{self.name}: cannot be loaded: {problem}") from None
        if "error" in answer:
            self.close()
            raise ConfigError(f"{self.name}: cannot be loaded: {answer['error']}")

    def _ask(self, line: bytes, seconds: float) -> dict[str, Any]:
        """The next line that the process writes, after this one was sent to it."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except BrokenPipeError:
            self.close()
            raise FunctionFailed("its process ended") from None
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            part = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                self.close()
                raise FunctionFailed("its process ended" if ready else f"no answer in {seconds:g} seconds")
            self._rest += part
        head, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(head)
        return answer


def load(name: str) -> Any:
    """The function of ``module:function``. Raises ConfigError."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ConfigError(f"{name}: cannot be loaded: {problem}") from None
    if not callable(found):
        raise ConfigError(f"{name}: is no function")
    return found


def serve() -> None:
    """The process's side. What the user's code prints goes to standard error: standard output is the wire."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent's step first, which may still ask
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(answer: dict[str, Any]) -> None:
        wire.write(json.dumps(answer) + "\n")
        wire.flush()

    try:
        function = load(sys.argv[1])
    except Exception as problem:
        tell({"error": str(problem)})
        return
    tell({"value": "ready"})
    for line in sys.stdin:
        call = json.loads(line)
        try:
            value = function(Task.model_validate(call["task"]), *call["arguments"])
            tell({"value": getattr(value, "value", value)})  # a Score is its value
        except Exception as problem:
            tell({"error": f"{type(problem).__name__}: {problem}"[:500]})
