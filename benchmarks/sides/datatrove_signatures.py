"""datatrove's MinHash signatures with FineWeb's settings (see ../duplicates.py)."""

from __future__ import annotations

import tempfile

import prose
import work
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig


def main() -> None:
    arguments = prose.arguments()
    texts = prose.documents(arguments.documents)
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))

    def step(_: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            signer = MinhashDedupSignature(folder, config)
            if arguments.what == "files":
                signer.run(Document(text=text, id=str(i)) for i, text in enumerate(texts))
                return
            for text in texts:
                signer.get_signature(signer.get_shingles(text))

    seconds, first = work.timed(step, 3, 1)
    size = sum(map(len, texts)) / len(texts)
    work.report(len(texts) / work.median(seconds), first, ("datatrove", "numpy", "spacy"), characters=round(size))


if __name__ == "__main__":
    main()
