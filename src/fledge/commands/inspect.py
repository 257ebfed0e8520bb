"""``fledge inspect``: the tokens of data, and which are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from fledge.core.errors import ConfigError
from fledge.tokenizer.chat import MASKS, Mask
from fledge.tokenizer.inspect import inspect_records
from fledge.tokenizer.tokenizer import Tokenizer


def inspect(data: Path, tokenizer: Path, limit: int, mask: str, ids: bool, max_tokens: int | None) -> None:
    if mask not in MASKS:
        raise ConfigError(f"--mask {mask}: unknown; one of {', '.join(MASKS)}")
    loaded = Tokenizer.load(tokenizer.expanduser())
    inspect_records(
        data.expanduser(), loaded, mask=cast(Mask, mask), limit=limit, ids=ids, max_tokens=max_tokens
    )  # fmt: skip
