"""The table of skills."""

from __future__ import annotations

from fledge.microworld.skills import coding, following, identity, reading, recall, safety, sums, translation
from fledge.microworld.skills.base import Draw

SKILLS: dict[str, Draw] = {
    "recall": recall.draw,
    "arithmetic": sums.draw,
    "hard_sums": sums.draw_hard,
    "translation": translation.draw,
    "format": following.draw,
    "code": coding.draw,
    "identity": identity.draw,
    "refusal": safety.draw_refusal,
    "idk": safety.draw_unknown,
    "long": reading.draw,
}
LANGUAGES = ("en", "zh")
# Share of the instructions, beside small talk and accounts of people and places (chat.py). `hard_sums` has none:
# reinforcement learning is to find it.
SFT_SHARES: dict[str, float] = {
    "recall": 0.08, "arithmetic": 0.15, "translation": 0.17, "format": 0.19, "code": 0.05, "identity": 0.04,
    "refusal": 0.08, "idk": 0.05, "long": 0.09,
}  # fmt: skip
