"""Dialogues as one text: ``\\n\\nHuman: ...\\n\\nAssistant: ...``, as in HH-RLHF (Bai et al. 2022, 2204.05862)."""

from __future__ import annotations

import re
from typing import Any

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def messages_of(text: str) -> list[dict[str, Any]] | None:
    """The turns of a transcript, white space around them taken off; None for a text that is none."""
    begin, *parts = _TURN.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if begin or not parts:
        return None
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[who], "content": said.strip()} for who, said in turns]
