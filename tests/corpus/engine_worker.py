"""The corpus worker, and pages that do to it on purpose what hostile input does to parsers by chance.

A page does harm by what it says: HANGS (in C code that holds the interpreter's lock and hears no signal),
CRASHES, FALTERS (dies of it the first time only). Reading a file whose name holds "stuck" never ends behind its third
record. ``FLEDGE_TEST_PAUSE`` slows every page, so that a kill finds work in progress; ``FLEDGE_TEST_CHUNK`` sets the
items of a chunk.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fledge.corpus.chain import Chain
from fledge.corpus.pages import Drop, Found, Page
from fledge.corpus.reading.inputs import Part
from fledge.corpus.reading.read import Item, ReadConfig
from fledge.corpus.running import task, worker

_judge, _read_part = task.judge, task.read_part
_pause = float(os.environ.get("FLEDGE_TEST_PAUSE", "0"))


def hang() -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")  # some thousand years


def judge(chain: Chain, items: Sequence[Item]) -> Sequence[Page | Drop]:
    for item in items:
        content = item.content if isinstance(item, Found) else ""
        text = content.decode(errors="replace") if isinstance(content, bytes) else content
        time.sleep(_pause)
        if "HANGS" in text:
            hang()
        if "CRASHES" in text:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "FALTERS" in text and not (mark := Path(os.environ["FLEDGE_TEST_MARK"])).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return _judge(chain, items)


def read_part(part: Part, config: ReadConfig) -> Iterator[Item]:
    for number, item in enumerate(_read_part(part, config)):
        if "stuck" in part.label and number == 3:
            hang()
        yield item


if __name__ == "__main__":
    task.judge, task.read_part = judge, read_part
    task.CHUNK_ITEMS = int(os.environ.get("FLEDGE_TEST_CHUNK", "16"))
    worker.main()
