"""The same with transformers' fast tokenizer: JSON lines are read, batches encoded, the end token appended, ids
written to a file as int32. No ids of documents, no fingerprint, no lineage: less work than a stage does.

Within the time: loading the tokenizer, reading, encoding, writing. Outside: the interpreter's start and imports.
``--how fast`` goes past transformers to ``encode_batch_fast`` of the tokenizer inside; ``--processes 2`` hands batches
to processes that have one thread each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokenise_common as common

STARTED = time.perf_counter()
END = "<|endoftext|>"
_tokenizer: Any = None


def load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def begin(folder: Path) -> None:
    """Of a worker process."""
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer = load(folder)


def encode(texts: list[str], how: str) -> tuple[int, list[np.ndarray]]:
    """(bytes of the texts, ids of each with the end token)."""
    end = _tokenizer.convert_tokens_to_ids(END)
    if how == "fast":
        found = [e.ids for e in _tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    elif how == "ids":
        found = _tokenizer(texts, return_attention_mask=False, return_token_type_ids=False, verbose=False)["input_ids"]
    else:
        found = _tokenizer(texts)["input_ids"]
    return sum(len(t.encode()) for t in texts), [np.array([*ids, end], dtype=np.int32) for ids in found]


def batches(path: Path, size: int) -> Iterator[list[str]]:
    with path.open(encoding="utf-8") as file:
        while lines := list(itertools.islice(file, size)):
            yield [json.loads(line)["text"] for line in lines]


def encoded(arguments: argparse.Namespace, tokenizer: Path) -> Iterator[tuple[int, list[np.ndarray]]]:
    global _tokenizer
    parts = batches(arguments.folder / "corpus.jsonl", arguments.batch)
    if arguments.processes == 1:
        _tokenizer = load(tokenizer)
        for texts in parts:
            yield encode(texts, arguments.how)
        return
    context = multiprocessing.get_context("fork")  # cheap: nothing has started threads yet
    with context.Pool(arguments.processes, begin, (tokenizer,)) as pool:
        yield from pool.imap(_encode, ((texts, arguments.how) for texts in parts))


def _encode(work: tuple[list[str], str]) -> tuple[int, list[np.ndarray]]:
    return encode(*work)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--how", choices=("plain", "ids", "fast"), default="plain")
    arguments = parser.parse_args()
    import transformers  # noqa: F401  (its import is outside the time, as ours is)
    from transformers import AutoTokenizer  # noqa: F401

    size = 0
    lengths: list[int] = []
    with tempfile.TemporaryDirectory() as place:
        begun = time.perf_counter()
        with (Path(place) / "tokens.bin").open("wb") as file:
            for read, arrays in encoded(arguments, arguments.folder / f"tokenizer-{arguments.vocabulary}"):
                size += read
                lengths += map(len, arrays)
                file.write(np.concatenate(arrays).tobytes())
        np.array(lengths, np.int64).tofile(Path(place) / "lengths.bin")
        seconds = time.perf_counter() - begun
        ids = common.digest([np.fromfile(Path(place) / "tokens.bin", np.int32)])
    common.say(size, seconds, begun - STARTED, ids, sum(lengths), ("transformers", "tokenizers"))


if __name__ == "__main__":
    main()
