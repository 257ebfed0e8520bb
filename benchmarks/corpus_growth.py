"""How a whole corpus grows: 50,000 and 500,000 short documents through `fledge corpus`, every default.

    python benchmarks/corpus_growth.py [--quick]

Documents of about 500 characters: sentences of the interpreter's own language reference, drawn anew for each; a tenth
are copies of others and a fifth differ from others in one sentence. Time is of the command from start to end; memory
the most that all of its processes held together (proportional set size, looked at five times a second). Writes
results/corpus_growth.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pair import HERE, RESULTS, WORK, lock, machine

POINTS = (50_000, 500_000)
SHARD = 10_000
SENTENCES = 5  # a document
_SENTENCE = re.compile(r"[A-Z][A-Za-z ,;()'-]{50,160}\.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a tenth of the documents")
    arguments = parser.parse_args()
    found = []
    for documents in POINTS:
        count = documents // 10 if arguments.quick else documents
        with lock(), tempfile.TemporaryDirectory() as name:
            write_documents(Path(name) / "in", count)
            point = {"documents": count, **run_corpus(Path(name))}
        print(json.dumps(point), flush=True)
        found.append(point)
    path = (WORK / "quick" if arguments.quick else RESULTS) / "corpus_growth.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "points": found}, indent=1) + "\n", encoding="utf-8")
    small, large = found
    print(f"time x{large['seconds'] / small['seconds']:.1f}, memory x{large['mib'] / small['mib']:.2f}")
    return 0


def write_documents(folder: Path, count: int) -> None:
    folder.mkdir()
    for shard in range(count // SHARD or 1):
        with (folder / f"{shard:03}.jsonl").open("w", encoding="utf-8") as file:
            for text in documents(shard, min(count, SHARD)):
                file.write(json.dumps({"text": text}) + "\n")


def documents(shard: int, count: int) -> Iterator[str]:
    """A tenth are exact copies of the shard before, a fifth differ from one of its documents in one sentence: clusters
    stay as small as they are, whatever the number of shards."""
    sentences = _sentences()
    picked = _picked(shard, count, len(sentences))
    if shard:
        rng = np.random.default_rng([43, shard])
        copies = count * 3 // 10
        picked[:copies] = _picked(shard - 1, count, len(sentences))[rng.integers(copies, count, copies)]
        near = np.arange(count // 5)
        picked[near, rng.integers(0, SENTENCES, len(near))] = rng.integers(0, len(sentences), len(near))
    return (" ".join(sentences[i] for i in row) for row in picked.tolist())


def _picked(shard: int, count: int, known: int) -> np.ndarray:
    return np.random.default_rng([47, shard]).integers(0, known, (count, SENTENCES))


def _sentences() -> list[str]:
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name] for name in sorted(topics)).split())
    return sorted(set(_SENTENCE.findall(text)))


def run_corpus(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "fledge.cli", "corpus", "make", str(folder / "in"), "--out", str(folder / "out")]
    variables = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    begun = time.monotonic()
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    most, ended = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, most, ended))
    watcher.start()
    said, _ = process.communicate()
    seconds = time.monotonic() - begun
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    counts = json.loads(said.decode().splitlines()[-1])
    return {"seconds": round(seconds, 1), "mib": round(most[0]), **counts}


def _watch(root: int, most: list[float], ended: threading.Event) -> None:
    while not ended.wait(0.2):
        most[0] = max(most[0], sum(map(_held, _family(root))))


def _family(root: int) -> list[int]:
    """A process and all that it has started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):  # it has ended in between
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += parents.get(process, [])
    return found


def _held(process: int) -> float:
    """MiB; memory that several processes share counts in parts."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    line = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
    return int(line[1]) / 1024 if line else 0.0


if __name__ == "__main__":
    sys.exit(main())
