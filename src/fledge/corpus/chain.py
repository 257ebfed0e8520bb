"""What happens to records: from what a reader found to pages that stay, or to rows of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from fledge.core.config import Config
from fledge.core.errors import ConfigError, DataError
from fledge.corpus.copies.duplicates import DuplicatesConfig
from fledge.corpus.extraction import urls
from fledge.corpus.extraction.extract import ExtractConfig, Extractor
from fledge.corpus.extraction.normalise import NormaliseConfig
from fledge.corpus.extraction.urls import BlockList, UrlsConfig
from fledge.corpus.judging import contamination, damage, language, line_rules, personal, rules, toxic
from fledge.corpus.judging.contamination import ContaminationConfig
from fledge.corpus.judging.damage import DamageConfig
from fledge.corpus.judging.language import LanguageConfig
from fledge.corpus.judging.line_rules import LinesConfig
from fledge.corpus.judging.measures import Measures
from fledge.corpus.judging.personal import PersonalConfig
from fledge.corpus.judging.repeats import clean_page
from fledge.corpus.judging.rules import RulesConfig
from fledge.corpus.judging.toxic import ToxicConfig
from fledge.corpus.pages import Drop, Found, Page, Refused, drop_page, drop_refused
from fledge.corpus.reading.inputs import ReadConfig
from fledge.corpus.scoring.scores import Scores, ScoresConfig

# In this order; duplicates are found over the whole corpus, after all shards went through the others.
STAGES = (
    "read", "urls", "extract", "damage", "language", "lines", "personal", "toxic", "contamination", "rules", "scores",
    "duplicates",
)  # fmt: skip
_VALUES = (
    "text.characters", "language.score", "damage.share", "damage.characters", "lines.share", "lines.repeats",
    *(f"personal.{kind}" for kind in personal.KINDS), "toxic.density", "toxic.weight", "contamination.share",
)  # fmt: skip
TOGETHER = 1 << 17  # characters that are measured together: their arrays are a few megabytes


class ChainConfig(Config):
    """Everything that decides about a page."""

    read: ReadConfig = Field(default_factory=ReadConfig)
    urls: UrlsConfig = Field(default_factory=UrlsConfig)
    extract: ExtractConfig = Field(default_factory=ExtractConfig)
    normalise: NormaliseConfig = Field(default_factory=NormaliseConfig)
    damage: DamageConfig = Field(default_factory=DamageConfig)
    languages: LanguageConfig = Field(default_factory=LanguageConfig)
    lines: LinesConfig = Field(default_factory=LinesConfig)
    rules: RulesConfig = Field(default_factory=RulesConfig)
    scores: ScoresConfig = Field(default_factory=ScoresConfig)
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
        for name in given.limits:
            if name not in (*kept, "code"):
                raise ValueError(
                    f"limits.{name}: no page of this language stays, so its limits would mean nothing; there are: "
                    f"{', '.join((*kept, 'code'))} (languages.keep says which stay)"
                )
        return given


class Chain:
    """The steps for pages, some hundred at a time. Holds what they share: configuration and the index of test items."""

    def __init__(self, config: ChainConfig) -> None:
        self.config = config
        self.tests = contamination.TestIndex(
            contamination.read_tests(config.decontaminate), config.contamination
        )  # empty without test files
        self.scores = Scores(config.scores, config.toxic if config.toxic.classifier else None)
        self.extract = Extractor(config.extract, config.normalise)
        self.blocked = BlockList(config.urls.block)

    @cached_property
    def values(self) -> list[str]:
        """Names of all that may be measured on a page: the same for every shard."""
        languages = (*self.config.languages.keep, "code")
        of_rules = {f"rules.{name}" for language in languages for name in self.config.rules.table(language)}
        of_models = self.scores.score([], []) if len(self.scores) else {}
        return [*_VALUES, *sorted(of_rules), *sorted(name for name in of_models if name not in _VALUES)]

    def judge(self, items: Sequence[Found | Refused]) -> list[Page | Drop]:
        """What becomes of each record; nothing depends on those beside it. Every page that was extracted is measured by
        all steps (``values``), and leaves by the first of `STAGES` that refuses it.

        Raises `DataError` for what cannot be read where ``on_error`` is ``fail``.
        """
        results = [self._extracted(item) for item in items]
        pages = [result for result in results if isinstance(result, Page)]
        leaving: dict[int, Drop] = {}  # by the page's place in memory: ids may be equal
        for page in pages:
            drop = self._guarded(self._measure, page)
            if drop is not None:
                leaving[id(page)] = drop
        broken = {key: drop for group in _groups(pages) for key, drop in self._by_rules(group).items()}
        if len(self.tests):
            for page in pages:
                drop = self._guarded(self._contamination, page)
                if drop is not None:
                    leaving.setdefault(id(page), drop)
        leaving = {**broken, **leaving}
        staying = [page for page in pages if id(page) not in leaving and page.kind != "code"]
        if len(self.scores) and staying:
            leaving.update(self._by_scores(staying))
        return [leaving.get(id(result), result) for result in results]

    def _extracted(self, item: Found | Refused) -> Page | Drop:
        if isinstance(item, Refused):
            if item.error and self.config.on_error == "fail":
                raise DataError(f"{item.detail}\n  (on_error=skip counts it in the ledger and goes on)")
            return drop_refused(item)
        page = Page("", item.source, item.offset, item.kind, item.url)
        entry = self.blocked.find(item.url)
        if entry:
            return drop_page(page, "urls", "blocked", 1.0, 0.0, version=urls.VERSION, detail=f"in the list: {entry}")
        problem = detail = ""

        def run(_: Page) -> Drop | None:
            nonlocal page, problem, detail
            page, problem, detail = self.extract(item)
            return None

        failed = self._guarded(run, page)
        if failed is not None:
            return failed
        if not problem:
            return page
        error = problem != "empty"
        if error and self.config.on_error == "fail":
            raise DataError(f"{item.source}, offset {item.offset}: {problem} {detail} (on_error=skip goes on)")
        kind = "bytes" if isinstance(item.content, bytes) else "characters"
        detail = f"{problem}: {len(item.content)} {kind}" + (f": {detail}" if detail else "")
        return drop_page(page, "extract", problem, 0.0, 1.0, detail=detail, error=error)

    def _guarded(self, step: Callable[[Page], Drop | None], page: Page) -> Drop | None:
        """One poisonous page must not cost the others: what a step raises is an error of the page alone."""
        try:
            return step(page)
        except ConfigError:
            raise  # no page's fault: an extractor that is not installed
        except Exception as error:
            if self.config.on_error == "fail":
                raise
            detail = f"{type(error).__name__}: {error}"
            return drop_page(page, "extract", "exception", 1.0, 0.0, detail=detail, error=True)

    def _measure(self, page: Page) -> Drop | None:
        """The steps that look at one text: all of them, and the first that refuses it."""
        self._identify(page)
        drops = [self._damage(page), self._language(page), self._lines(page), self._repeats(page),
                 self._personal(page), self._toxic(page)]  # fmt: skip
        return next((drop for drop in drops if drop is not None), None)

    def _identify(self, page: Page) -> None:
        page.values["text.characters"] = len(page.text)
        if page.kind == "code":
            page.language = "code"
            return
        page.language, page.values["language.score"] = language.identify(page.text, self.config.languages)
        if page.language == "zh":
            page.meta |= language.chinese_facts(page.text)

    def _damage(self, page: Page) -> Drop | None:
        config = self.config.damage
        if page.kind == "code":
            return None
        share, count = damage.damage(page.text)
        page.values |= {"damage.share": share, "damage.characters": count}
        if share > config.share and count >= config.characters:
            return drop_page(page, "damage", "mojibake", share, config.share, version=damage.VERSION)
        return None

    def _language(self, page: Page) -> Drop | None:
        config = self.config.languages
        if page.kind == "code":
            return None
        score = page.values["language.score"]
        if page.language not in config.keep:
            return drop_page(page, "language", page.language, score, 0.0, version=language.VERSION)
        threshold = config.threshold(page.language)
        if score < threshold:
            return drop_page(page, "language", "uncertain", score, threshold, version=language.VERSION)
        return None

    def _lines(self, page: Page) -> Drop | None:
        config = self.config.lines
        if page.kind == "code" or not config.drop:
            return None
        page.text, share, gone = line_rules.without(page.text, config)
        page.values["lines.share"] = share
        if gone:
            page.meta["lines"] = gone
        if page.text and share <= config.most:
            return None
        return drop_page(page, "lines", "too_many", share, config.most, version=line_rules.VERSION, detail=str(gone))

    def _repeats(self, page: Page) -> Drop | None:
        return clean_page(page, self.config.duplicates.repeats)

    def _personal(self, page: Page) -> Drop | None:
        config = self.config.personal
        treated = personal.treat(page.text, config, page.kind == "code")
        page.values |= {f"personal.{kind}": treated.found.get(kind, 0) for kind in personal.KINDS}
        if treated.drop:
            return drop_page(
                page, "personal", treated.drop, treated.dropping, config.most, version=personal.VERSION,
                detail=treated.excerpt,
            )  # fmt: skip
        if treated.masked:
            page.text = treated.text
            page.meta["masked"] = treated.masked  # by kind
        return None

    def _toxic(self, page: Page) -> Drop | None:
        if page.kind == "code":
            return None
        density, weight = toxic.toxicity(page.text)
        page.values |= {"toxic.density": density, "toxic.weight": weight}
        if density > self.config.toxic.density and weight >= self.config.toxic.least:
            return drop_page(page, "toxic", "insults", density, self.config.toxic.density, version=toxic.VERSION)
        return None

    def _by_rules(self, pages: Sequence[Page]) -> dict[int, Drop]:
        """Pages of one language. Where measuring them together fails, each is measured alone."""
        try:
            measures = Measures([page.text for page in pages], pages[0].language)
            values = rules.measure(measures, self.config.rules)
        except Exception:
            if len(pages) > 1:
                return {key: drop for page in pages for key, drop in self._by_rules([page]).items()}
            drop = self._guarded(self._fail_again, pages[0])
            return {id(pages[0]): drop} if drop else {}
        broken = rules.judge(values, self.config.rules.table(measures.language), len(pages))
        leaving = {}
        for number, (page, hashes) in enumerate(zip(pages, measures.page_hashes(), strict=True)):
            page.hashes = hashes
            page.values |= {f"rules.{name}": float(value[number]) for name, value in values.items()}
            found = broken[number]
            if found is not None:
                leaving[id(page)] = drop_page(
                    page, "rules", found.rule, found.value, found.threshold, version=found.version
                )
        return leaving

    def _fail_again(self, page: Page) -> Drop | None:
        rules.measure(Measures([page.text], page.language), self.config.rules)
        return None

    def _by_scores(self, pages: Sequence[Page]) -> dict[int, Drop]:
        """Pages that nothing before has refused: models cost more than all else."""
        found = self.scores.score([page.text for page in pages], [page.language for page in pages])
        quality = self.scores.quality(found, len(pages))
        leaving: dict[int, Drop] = {}
        for number, page in enumerate(pages):
            page.quality = float(quality[number])
            values = {name: float(value[number]) for name, value in found.items() if not np.isnan(value[number])}
            page.values |= values
            probability = values.get("toxic.probability", 0.0)
            if probability > self.config.toxic.probability:
                leaving[id(page)] = drop_page(
                    page, "toxic", "classifier", probability, self.config.toxic.probability, version=toxic.VERSION
                )
                continue
            for name, limits in self.config.scores.table(page.language).items():
                threshold = limits.broken(values[name]) if name in values else None
                if threshold is not None:
                    leaving[id(page)] = drop_page(page, "scores", name, values[name], threshold)
                    break
        return leaving

    def _contamination(self, page: Page) -> Drop | None:
        sharing = self.tests.sharing(page.hashes)
        if sharing:
            page.meta["tests"] = sharing
        hit = self.tests.find(page.text, page.hashes)
        page.values["contamination.share"] = hit.share if hit else 0.0
        if hit is None:
            return None
        rule, threshold = "whole_item" if hit.whole else "lcs", hit.threshold
        version = contamination.VERSION
        return drop_page(page, "contamination", rule, hit.share, threshold, version=version, survivor=hit.test)


def _groups(pages: Sequence[Page]) -> Iterator[list[Page]]:
    """Pages of one language, as many together as their arrays fit the cache."""
    by_language: dict[str, list[Page]] = {}
    for page in pages:
        by_language.setdefault(page.language, []).append(page)
    for alike in by_language.values():
        group: list[Page] = []
        size = 0
        for page in alike:
            if group and size + len(page.text) > TOGETHER:
                yield group
                group, size = [], 0
            group.append(page)
            size += len(page.text)
        if group:
            yield group
