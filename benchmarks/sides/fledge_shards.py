"""Stage shards on a corpus: documents as JSON lines -> shards on disk. MB of text a second, of the whole stage.

Within the time: the fingerprint of the input, the tokenizer and its check, reading, encoding, ids of documents,
writing, the manifest. Outside: the interpreter's start and imports.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import tokenise_common as common

STARTED = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    from fledge.core.artefact import read_manifest
    from fledge.core.config import build
    from fledge.corpus.writing.shards import TokenShards
    from fledge.stages import shards

    values = {
        "documents": str(arguments.folder / "corpus.jsonl"), "workers": arguments.workers, "held_out": 0,
        "tokenizer": str(arguments.folder / f"tokenizer-{arguments.vocabulary}"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "shards"
        begun = time.perf_counter()
        shards.run(build(shards.Config, values), out)
        seconds = time.perf_counter() - begun
        made = TokenShards(out)
        metrics = read_manifest(out)["metrics"]
        ids = common.digest(made.tokens(index) for index in range(len(made)))
    common.say(
        metrics["train"]["bytes"], seconds, begun - STARTED, ids, metrics["tokens"], ("fledge", "tiktoken"),
        encoder=metrics["encoder"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
