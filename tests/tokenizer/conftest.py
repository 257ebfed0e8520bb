"""A tokenizer trained once on text in both languages, and the same folder as transformers reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizer_texts import training_texts

from fledge.tokenizer import bpe
from fledge.tokenizer.template import QWEN2_SYSTEM
from fledge.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def plain() -> Tokenizer:
    """1,024 rows, no default system message."""
    return bpe.train(training_texts(), 1024)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tokenizer with Qwen2's default system message."""
    place = tmp_path_factory.mktemp("tokenizer")
    bpe.train(training_texts(), 1024, default_system=QWEN2_SYSTEM).save(place)
    return place


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def reference(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
    return transformers.AutoTokenizer.from_pretrained(folder)
