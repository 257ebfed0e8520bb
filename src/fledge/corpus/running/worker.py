"""A process that works on shards: told which on its standard input, it says what it does on its standard output.

Both are JSON, a message a line. In: the job (``config``, ``folder``, ``parent``), then shards, one at a time. Out: what
`run_shard` (task.py) says, then ``done`` with the counts, or ``error`` with its class and text. It ends with
its standard input, and with the process that started it, however that one ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from fledge.core.errors import FledgeError
from fledge.corpus.chain import ChainConfig
from fledge.corpus.reading.inputs import Part, Shard
from fledge.corpus.running.task import run_shard


def shard_to_plain(shard: Shard) -> dict[str, Any]:
    return {"index": shard.index, "parts": [{**asdict(part), "path": str(part.path)} for part in shard.parts]}


def shard_from_plain(value: dict[str, Any]) -> Shard:
    parts = tuple(Part(**{**part, "path": Path(part["path"])}) for part in value["parts"])
    return Shard(value["index"], parts)


def main() -> None:
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no message
    job = json.loads(sys.stdin.readline())
    _end_with(job["parent"])
    config = ChainConfig.model_validate_json(job["config"])
    for line in sys.stdin:
        _work(shard_from_plain(json.loads(line)), config, Path(job["folder"]), messages)


def _work(shard: Shard, config: ChainConfig, folder: Path, messages: TextIO) -> None:
    def say(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    try:
        say({"done": run_shard(shard, config, folder, say)})
    except FledgeError as error:
        say({"error": type(error).__name__, "text": str(error)})
    except Exception:
        say({"error": "", "text": traceback.format_exc()})


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies; elsewhere than on Linux it ends behind its shard."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ctypes.c_int(1), ctypes.c_ulong(signal.SIGKILL))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")


if __name__ == "__main__":
    main()
