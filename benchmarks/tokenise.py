"""Tokenising a corpus into shards on this machine's cores: ours against transformers' fast tokenizer in batches.

    python benchmarks/tokenise.py [--rounds 3] [--only 4k] [--quick]

36 MB of JSON lines (`sides/make_corpus.py`), a tokenizer of 4,096 and one of 32,768 rows, the same file for both
sides. Ours is the whole stage, lineage and manifest and all; the peer reads, encodes and writes the ids. That the ids
are the same, all of them in order, is checked at the end. Tuned: the best of several batch sizes, no masks, one
process with threads or two processes. "tokenizers" is the library inside transformers, called directly.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pair import HERE, RESULTS, SIDES, Peer, Row, Side, lock, main, parser, read_rows

WORK = Path(os.environ.get("BENCH_WORK") or HERE / ".work") / "tokenise"
VOCABULARIES = {"4k": 4096, "32k": 32_768}


def rows(folder: Path, shown: str) -> list[Row]:
    """``shown``: how the folder is named in results."""
    found = []
    for name, size in VOCABULARIES.items():
        common = ("--folder", shown, "--vocabulary", str(size))

        def theirs(*more: str, common: tuple[str, ...] = common) -> Side:
            return Side("transformers_tokenise.py", (*common, *more), "hf")

        tuned = (
            theirs("--how", "ids", "--batch", "100"), theirs("--how", "ids", "--batch", "1000"),
            theirs("--how", "ids", "--batch", "100", "--processes", "2"),
        )  # fmt: skip
        direct = (theirs("--how", "fast", "--batch", "100"), theirs("--how", "fast", "--batch", "1000"))
        peers = (
            Peer("transformers", False, (theirs(),)), Peer("transformers", True, tuned),
            Peer("tokenizers", True, direct),
        )  # fmt: skip
        found.append(Row(f"tokenising into shards, {name} rows", "MB/s", Side("fledge_shards.py", common), peers))
    return found


def check(path: Path) -> list[str]:
    """What the results say of ids that differ, job by job."""
    found: dict[str, set[str]] = {}
    for row in read_rows(path):
        for side in ("ours", "theirs"):
            if "ids" in row["config"].get(side, {}):
                found.setdefault(row["job"], set()).add(row["config"][side]["ids"])
    return [f"{job}: the sides have different ids" for job, ids in found.items() if len(ids) > 1]


if __name__ == "__main__":
    arguments = parser(__doc__).parse_args()
    folder = WORK / ("quick" if arguments.quick else "corpus")
    with lock():
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}
        size = ["--megabytes", "6"] if arguments.quick else []
        command = [sys.executable, str(SIDES / "make_corpus.py"), str(folder), *size]
        subprocess.run(command, env=environment, check=True)
    os.chdir(HERE)
    code = main("tokenise", rows(folder, os.path.relpath(folder, HERE)), arguments)
    wrong = check((HERE / ".work" / "quick" if arguments.quick else RESULTS) / "tokenise.jsonl")
    print("\n".join(wrong) or "ids: the same on all sides", flush=True)
    sys.exit(1 if wrong else code)
