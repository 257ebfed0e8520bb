"""Write what the sides of `tokenise.py` read: a corpus as JSON lines, and tokenizers trained on it.

    python benchmarks/sides/make_corpus.py FOLDER [--megabytes 36] [--vocabularies 4096 32768]

Nothing is downloaded: three quarters are the text of the interpreter's own library, cut at line breaks to documents
of up to 8,000 characters, one quarter generated pages in Chinese and English.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator
from pathlib import Path

from fledge.core.readers import read_records, write_jsonl
from fledge.core.records import Document
from fledge.microworld import site
from fledge.microworld.config import Config
from fledge.microworld.world import World
from fledge.tokenizer import bpe

LONGEST = 8000
TRAINED_ON = 10_000_000  # characters that the tokenizers are trained on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=36)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[4096, 32_768])
    arguments = parser.parse_args()
    corpus = arguments.folder / "corpus.jsonl"
    if not corpus.exists():
        size = int(arguments.megabytes * 1e6)
        documents = [*taken(library(), size * 3 // 4), *taken(pages(), size // 4)]
        random.Random(0).shuffle(documents)
        write_jsonl(corpus, documents)
    for rows in arguments.vocabularies:
        place = arguments.folder / f"tokenizer-{rows}"
        if not (place / "tokenizer.json").exists():
            bpe.train(sample(corpus), rows).save(place)


def library() -> Iterator[Document]:
    root = Path(os.__file__).parent
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if path.suffix not in (".py", ".txt", ".rst") or "site-packages" in inside.parts:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # tests of codecs
        for number, part in enumerate(cut(text)):
            yield Document(text=part, source=f"library/{inside.as_posix()}#{number}", language="en")


def cut(text: str) -> Iterator[str]:
    """Parts of up to `LONGEST` characters, ending at line breaks where there are any."""
    start = 0
    while start < len(text):
        line = text.rfind("\n", start, start + LONGEST)
        end = line + 1 if line > start and start + LONGEST < len(text) else start + LONGEST
        yield text[start:end]
        start = end


def pages() -> Iterator[Document]:
    for seed in range(100):
        world = World(Config(pages=2000, defect_rate=0, seed=seed))
        for number, page in enumerate(site.make_pages(world, [])):
            yield Document(text=page.text, source=f"pages/{seed}#{number}", language=page.language)


def taken(documents: Iterator[Document], size: int) -> Iterator[Document]:
    """Documents until they have ``size`` bytes."""
    for document in documents:
        yield document
        size -= len(document.text.encode())
        if size <= 0:
            return


def sample(corpus: Path) -> Iterator[str]:
    left = TRAINED_ON
    for document in read_records(corpus, Document):
        yield document.text
        left -= len(document.text)
        if left <= 0:
            return


if __name__ == "__main__":
    main()
