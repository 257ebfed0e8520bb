"""A corpus made in a process of its own, to be killed: ``engine_run.py CONFIG OUT``, with such workers."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from fledge.corpus.reading import inputs
from fledge.corpus.running import watch
from fledge.stages import corpus

WORKER = [sys.executable, str(Path(__file__).with_name("engine_worker.py"))]


def digest_of(folder: Path) -> dict[str, str]:
    """Of every file but the manifest, which says when it was made."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    watch.COMMAND = WORKER
    inputs.SHARD_BYTES = 1  # a shard a file
    corpus.run(corpus.Config.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
