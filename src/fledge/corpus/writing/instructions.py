"""Instructions as plain documents for pretraining (SPEC E.1 (9), E.7): several templates, zero and few examples before.

Loss is on all tokens, as of any document. A dialogue that shares a 13-gram with a test item is left out, and so is one
that holds a whole item that is shorter (SPEC E.1 (10)).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fledge.core.readers import OnError, read_placed
from fledge.core.records import Conversation, Document
from fledge.corpus.judging.contamination import read_tests
from fledge.corpus.text.tokens import Hashes, han_count, hash_tokens, ngrams, tokens

KIND = "instruction"
NGRAM = 13  # Qwen's, SPEC E.1 (10)
_SHORTEST = 6  # tokens of an item that is looked for as a whole: fewer stand in honest text by chance
_SHOTS = (0, 0, 1, 2, 4)  # examples before a dialogue, as likely as they stand here
_REMEMBERED = 64  # dialogues of one turn that examples are drawn from, so that a file of any size is read once
# What stands before a question and before an answer, and between turns.
_TEMPLATES = {
    "en": (("Question: ", "Answer: "), ("User: ", "Assistant: "), ("Instruction: ", "Response: "), ("", "")),
    "zh": (("问题：", "回答："), ("用户：", "助手："), ("指令：", "回复："), ("", "")),
}  # fmt: skip


class Tests:
    """Test items, and whether a text holds a part of one."""

    __test__ = False

    def __init__(self, paths: Sequence[Path]) -> None:
        self._grams: dict[int, Hashes] = {}
        found: dict[int, list[Hashes]] = {}
        for item in read_tests(paths):
            for text in (item.prompt, f"{item.prompt}\n{item.answer}"):
                hashes = hash_tokens(tokens(text))
                length = min(NGRAM, len(hashes))
                if length >= _SHORTEST:
                    found.setdefault(length, []).append(ngrams(hashes, length))
        for length, parts in found.items():
            self._grams[length] = np.unique(np.concatenate(parts))

    def touch(self, text: str) -> bool:
        hashes = hash_tokens(tokens(text))
        return any(bool(np.isin(ngrams(hashes, length), grams).any()) for length, grams in self._grams.items())


def instruction_documents(
    files: Sequence[Path], tests: Sequence[Path], seed: int, on_error: OnError, counts: Counter[str]
) -> Iterator[Document]:
    """The dialogues of ``files`` as documents, in their order; ``counts`` what was read, left out, and drawn."""
    index = Tests(tests)
    for file in files:
        before: dict[str, list[Conversation]] = {}
        skipped: list[str] = []
        for place, dialogue in read_placed(file, Conversation, on_error, skipped):
            counts["read"] += 1
            said = "\n".join(message.content for message in dialogue.messages)
            if index.touch(said):
                counts["contaminated"] += 1
                continue
            language = "zh" if han_count(said) * 4 > len(said) else "en"
            generator = random.Random(f"{seed} {file.name} {counts['read']}")
            pool = before.setdefault(language, [])
            shots = generator.sample(pool, min(generator.choice(_SHOTS), len(pool)))
            marks = generator.choice(_TEMPLATES[language])
            text = "\n\n".join(_plain(shot, marks) for shot in (*shots, dialogue))
            counts[f"{len(shots)} examples"] += 1
            yield Document(
                text=text, source=f"{KIND}s/{file.name}:{place.rpartition(':')[2]}", language=language,
                meta={"kind": KIND, "examples": len(shots)},
            )  # fmt: skip
            if len(dialogue.messages) == 2:
                pool.append(dialogue)
                del pool[:-_REMEMBERED]
        counts["skipped"] += len(skipped)


def _plain(dialogue: Conversation, marks: tuple[str, str]) -> str:
    question, answer = marks
    lines = []
    for message in dialogue.messages:
        mark = answer if message.role == "assistant" else "" if message.role == "system" else question
        lines.append(mark + message.content.strip())
    return "\n".join(lines)
