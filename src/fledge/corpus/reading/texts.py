"""The texts of any inputs, for what learns from text: read and extracted as a corpus does, refusals counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from fledge.corpus.reading.inputs import discover
from fledge.corpus.reading.read import ReadConfig


def files_of(inputs: Sequence[str], config: ReadConfig) -> list[Path]:
    """Raises `ConfigError` where an input names nothing."""
    found = discover([_documents(text) for text in inputs], config.stdlib_characters)
    return [path for files in found.files.values() for path in files]


def read_texts(inputs: Sequence[str], config: ReadConfig, refused: Counter[str]) -> Iterator[str]:
    """Every text; what is refused is counted in ``refused`` by its reason."""
    from fledge.corpus.extraction.extract import extract
    from fledge.corpus.pages import Refused
    from fledge.corpus.reading.read import read_part

    for shard in discover([_documents(text) for text in inputs], config.stdlib_characters).shards:
        for part in shard.parts:
            for item in read_part(part, config):
                if isinstance(item, Refused):
                    refused[item.rule] += 1
                    continue
                page, problem = extract(item)
                if problem:
                    refused[problem] += 1
                else:
                    yield page.text


def content_hash(text: str, seed: int) -> int:
    """64 bits that follow from content and seed: by them texts are drawn, so the order of files does not matter."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"), seed=seed & (2**64 - 1))


def _documents(text: str) -> str:
    """Of a corpus that Fledge has made, its documents: the ledger holds no texts."""
    folder = Path(text).expanduser() / "documents"
    return str(folder) if (folder.parent / "manifest.json").exists() and folder.is_dir() else text
