"""The dials of the world, and the sizes of it that have names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from fledge.core.config import Preset, WithPresets

_SMALL = {"people": 8, "places": 6, "tests_per_skill": 6}
_FEW = {"sft_conversations": 300, "preference_pairs": 60, "rl_tasks": 60}
_AS_CRAWLED = {
    "exact_duplicate": 6, "near_duplicate": 4, "wrong_language": 7, "mojibake": 3, "keyword_spam": 6,
    "boilerplate": 5, "truncated": 4, "link_list": 4, "search_listing": 4, "placeholder": 3, "too_short": 3,
    "bullet_list": 2, "digit_table": 2, "code_remains": 2, "repeated_lines": 1, "repeated_paragraphs": 1,
    "gibberish": 1, "lorem_ipsum": 1, "symbols": 1, "shouting": 1, "brackets": 1, "double_entities": 1,
    "toxic": 1, "personal_email": 1, "personal_phone": 1,
}  # fmt: skip


class Config(WithPresets):
    """How large the world is. The defaults are the laptop quickstart's."""

    presets: ClassVar[Mapping[str, Preset]] = {
        "smoke": Preset({"pages": 150, **_SMALL, **_FEW}, "minutes of work in seconds, for tests"),
        "laptop": Preset({}, "the quickstart (docs/quickstart.md)"),
        "crawl": Preset(
            {"pages": 40_000, "defects": "all", "defect_rate": 0.25, "people": 60, "places": 40, **_FEW},
            "50,000 pages, a fifth of them defective: to measure the corpus chain on, not to raise a model from",
        ),
        "dirty": Preset(
            {"pages": 1_400, "defects": "all", "defect_rate": 2.0, "defect_kinds": _AS_CRAWLED, **_FEW},
            "the laptop's world in a crawl as dirty as real ones. Of pages in the wanted language DCLM (2406.11794) "
            "keeps 48% by heuristics and 75% of these as no duplicates; here a third is clean and a ninth are copies. "
            "Pages in other languages, more than half of an open crawl, are fewer; no test items are leaked",
        ),
    }

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
    defect_rate: float = Field(default=0.12, ge=0, le=5, description="planted defects, as a share of the clean pages")
    defect_kinds: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="with defects=all: the kinds that are planted and how often each comes in a turn; empty: all, once",
    )

    def plain(self) -> dict[str, Any]:
        """As JSON values, without a choice that worlds before it did not have: theirs stay what they were."""
        values = super().plain()
        if self.defects == "few":
            del values["defects"]
        if not self.defect_kinds:
            del values["defect_kinds"]
        return values

    @model_validator(mode="after")
    def _kinds_of_a_crawl(self) -> Config:
        if self.defect_kinds and self.defects == "few":
            raise ValueError("defect_kinds: has an effect with defects=all only")
        return self

    def name(self, language: str) -> str:
        """The assistant's name in a language."""
        if self.assistant_name is not None:
            return self.assistant_name
        return self.assistant_name_en if language == "en" else self.assistant_name_zh


presets: dict[str, Config] = {name: Config(preset=name) for name in Config.presets}
