"""What happens to one record: from what a reader found to a page that stays, or to a row of the ledger."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from fledge.core.config import Config
from fledge.core.errors import ConfigError, DataError
from fledge.corpus import contamination, damage, language, personal, rules, toxic, urls
from fledge.corpus.contamination import ContaminationConfig
from fledge.corpus.damage import DamageConfig
from fledge.corpus.duplicates import DuplicatesConfig
from fledge.corpus.extract import ExtractConfig, Extractor
from fledge.corpus.inputs import ReadConfig
from fledge.corpus.language import LanguageConfig
from fledge.corpus.measures import Measures
from fledge.corpus.normalise import NormaliseConfig
from fledge.corpus.pages import Drop, Found, Page, Refused, drop_page, drop_refused
from fledge.corpus.personal import PersonalConfig
from fledge.corpus.rules import RulesConfig
from fledge.corpus.toxic import ToxicConfig
from fledge.corpus.urls import BlockList, UrlsConfig

# In this order; duplicates are found over the whole corpus, after all shards went through the others.
STAGES = (
    "read", "urls", "extract", "damage", "language", "personal", "toxic", "rules", "contamination", "duplicates",
)  # fmt: skip


class ChainConfig(Config):
    """Everything that decides about a page."""

    read: ReadConfig = Field(default_factory=ReadConfig)
    urls: UrlsConfig = Field(default_factory=UrlsConfig)
    extract: ExtractConfig = Field(default_factory=ExtractConfig)
    normalise: NormaliseConfig = Field(default_factory=NormaliseConfig)
    damage: DamageConfig = Field(default_factory=DamageConfig)
    languages: LanguageConfig = Field(default_factory=LanguageConfig)
    rules: RulesConfig = Field(default_factory=RulesConfig)
    personal: PersonalConfig = Field(default_factory=PersonalConfig)
    toxic: ToxicConfig = Field(default_factory=ToxicConfig)
    contamination: ContaminationConfig = Field(default_factory=ContaminationConfig)
    duplicates: DuplicatesConfig = Field(default_factory=DuplicatesConfig)
    decontaminate: tuple[Path, ...] = Field((), description="task files whose items must not be in the corpus")
    on_error: str = Field("skip", pattern="^(skip|fail)$", description="what cannot be read: count it, or stop")

    @field_validator("rules")
    @classmethod
    def _of_kept_languages(cls, given: RulesConfig, info: ValidationInfo) -> RulesConfig:
        kept = info.data["languages"].keep if "languages" in info.data else ()
        for name, table in given.limits.items():
            if name not in (*kept, "code") and table != rules.LIMITS.get(name):
                raise ValueError(
                    f"limits.{name}: no page of this language stays, so its limits would mean nothing; there are: "
                    f"{', '.join((*kept, 'code'))} (languages.keep says which stay)"
                )
        return given


class Chain:
    """The steps for one page. Holds what they share: configuration and the index of test items."""

    def __init__(self, config: ChainConfig) -> None:
        self.config = config
        self.tests = contamination.TestIndex(
            contamination.read_tests(config.decontaminate), config.contamination
        )  # empty without test files
        self.extract = Extractor(config.extract, config.normalise)
        self.blocked = BlockList(config.urls.block)
        self._checks = (
            self._damage, self._language, self._personal, self._toxic, self._rules, self._contamination,
        )  # fmt: skip

    def __call__(self, item: Found | Refused) -> Page | Drop:
        """Judge one record.

        Raises `DataError` for what cannot be read where ``on_error`` is ``fail``.
        """
        if isinstance(item, Refused):
            if item.error and self.config.on_error == "fail":
                raise DataError(f"{item.detail}\n  (on_error=skip counts it in the ledger and goes on)")
            return drop_refused(item)
        try:
            return self._judge(item)
        except ConfigError:
            raise  # no page's fault: an extractor that is not installed
        except Exception as error:  # one poisonous page must not cost the others
            if self.config.on_error == "fail":
                raise
            page = Page("", item.source, item.offset, item.kind, item.url)
            detail = f"{type(error).__name__}: {error}"
            return drop_page(page, "extract", "exception", 1.0, 0.0, detail=detail, error=True)

    def _judge(self, item: Found) -> Page | Drop:
        entry = self.blocked.find(item.url)
        if entry:
            page = Page("", item.source, item.offset, item.kind, item.url)
            return drop_page(page, "urls", "blocked", 1.0, 0.0, version=urls.VERSION, detail=f"in the list: {entry}")
        page, problem, detail = self.extract(item)
        if problem:
            error = problem != "empty"
            if error and self.config.on_error == "fail":
                raise DataError(f"{item.source}, offset {item.offset}: {problem} {detail} (on_error=skip goes on)")
            size = len(item.content)
            kind = "bytes" if isinstance(item.content, bytes) else "characters"
            detail = f"{problem}: {size} {kind}" + (f": {detail}" if detail else "")
            return drop_page(page, "extract", problem, 0.0, 1.0, detail=detail, error=error)
        for check in self._checks:
            drop = check(page)
            if drop is not None:
                return drop
        return page

    def _damage(self, page: Page) -> Drop | None:
        config = self.config.damage
        if page.kind == "code":
            return None
        share, count = damage.damage(page.text)
        if share > config.share and count >= config.characters:
            return drop_page(page, "damage", "mojibake", share, config.share, version=damage.VERSION)
        return None

    def _language(self, page: Page) -> Drop | None:
        if page.kind == "code":
            page.language = "code"
            return None
        config = self.config.languages
        page.language, score = language.identify(page.text, config)
        if page.language == "zh":
            page.meta |= language.chinese_facts(page.text)
        if page.language not in config.keep:
            return drop_page(page, "language", page.language, score, 0.0, version=language.VERSION)
        threshold = config.threshold(page.language)
        if score < threshold:
            return drop_page(page, "language", "uncertain", score, threshold, version=language.VERSION)
        return None

    def _personal(self, page: Page) -> Drop | None:
        config = self.config.personal
        action = config.code_action if page.kind == "code" else config.action
        if action == "keep":
            return None
        findings = personal.find_personal(page.text)
        if not findings:
            return None
        if action == "drop":
            if len(findings) <= config.most:
                return None
            kind = findings[0].kind
            return drop_page(
                page, "personal", kind, len(findings), config.most, version=personal.VERSION,
                detail=personal.mask(page.text, findings)[:160],
            )  # fmt: skip
        page.text = personal.mask(page.text, findings)
        page.meta["masked"] = len(findings)
        return None

    def _toxic(self, page: Page) -> Drop | None:
        if page.kind == "code":
            return None
        density, weight = toxic.toxicity(page.text)
        if density > self.config.toxic.density and weight >= self.config.toxic.least:
            return drop_page(page, "toxic", "insults", density, self.config.toxic.density, version=toxic.VERSION)
        return None

    def _rules(self, page: Page) -> Drop | None:
        measures = Measures(page.text, page.language)
        page.hashes = measures.hashes
        broken = rules.judge(measures, self.config.rules)
        if broken is None:
            return None
        return drop_page(page, "rules", broken.rule, broken.value, broken.threshold, version=broken.version)

    def _contamination(self, page: Page) -> Drop | None:
        hit = self.tests.find(page.text, page.hashes) if len(self.tests) else None
        if hit is None:
            return None
        rule, threshold = ("whole_item", 1.0) if hit.whole else ("lcs", self.config.contamination.share)
        version = contamination.VERSION
        return drop_page(page, "contamination", rule, hit.share, threshold, version=version, survivor=hit.test)
