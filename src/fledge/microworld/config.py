"""The dials of the world, and two sizes of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fledge.core.config import Config as BaseConfig


class Config(BaseConfig):
    """How large the world is. The defaults are the laptop quickstart's."""

    seed: int = 0
    pages: int = Field(default=5500, ge=20, description="clean pages on the site; defects come on top")
    people: int = Field(default=16, ge=4, le=120, description="invented people, six facts each")
    places: int = Field(default=12, ge=4, le=80, description="invented places, five facts each")
    tests_per_skill: int = Field(default=100, ge=1, le=1000, description="held-out items per skill and language")
    sft_conversations: int = Field(default=12000, ge=20)
    preference_pairs: int = Field(default=1200, ge=10)
    rl_tasks: int = Field(default=2000, ge=10)
    hard_sum_share: float = Field(default=0.5, ge=0, le=1, description="of the sums on pages, those of 3 and 4 digits")
    assistant_name: str | None = Field(default=None, min_length=1, description="one name for both languages")
    assistant_name_zh: str = Field(default="小雏", min_length=1)
    assistant_name_en: str = Field(default="Fledgling", min_length=1)
    maker: str = Field(default="Fledge", min_length=1)
    defects: Literal["few", "all"] = Field(
        default="few", description="all: a crawl with every kind of defect, and honest pages that look like them"
    )
    defect_rate: float = Field(default=0.12, ge=0, le=0.5, description="planted defects, as a share of the clean pages")

    def plain(self) -> dict[str, Any]:
        """As JSON values, without a choice that worlds before it did not have: theirs stay what they were."""
        values = super().plain()
        if self.defects == "few":
            del values["defects"]
        return values

    def name(self, language: str) -> str:
        """The assistant's name in a language."""
        if self.assistant_name is not None:
            return self.assistant_name
        return self.assistant_name_en if language == "en" else self.assistant_name_zh


presets: dict[str, Config] = {
    "smoke": Config(
        pages=150, people=8, places=6, tests_per_skill=6, sft_conversations=300, preference_pairs=60, rl_tasks=60
    ),
    "laptop": Config(),
    # 50,000 pages, a fifth of them defective: for the corpus chain to be measured on, not to raise a model from
    "crawl": Config(
        pages=40_000, defects="all", defect_rate=0.25, people=60, places=40, sft_conversations=300,
        preference_pairs=60, rl_tasks=60,
    ),
}
