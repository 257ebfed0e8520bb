"""Scores of models: whatever is asked for of classifier, perplexity and abuse, for a batch of pages at once.

Every scorer has ``score(texts, languages) -> {name: (texts,) float32}``; here they are named and put together. A value
that does not apply (a language without a model) is NaN. By the quality the survivor of duplicates is chosen; what else
scores decide is said by limits on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import Field, model_validator

from fledge.core.config import Config
from fledge.corpus.judging.rule_sets import Limits, Table
from fledge.corpus.judging.toxic import ToxicConfig, Toxicity

ANY = "any"


class Scorer(Protocol):
    """What scores pages."""

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        """{name: (texts,) float32}. A text's values do not depend on the texts beside it."""
        ...


class ScoresConfig(Config):
    """Which models score the pages. Nothing is scored unless a model is named; all are made by Fledge's own stages."""

    classifier: Path | None = Field(None, description="folder made by train-classifier: values quality.LABEL")
    label: str = Field("good", description="label of the classifier whose probability is a page's quality")
    perplexity: dict[str, Path] = Field(
        default_factory=dict,
        description="language -> folder made by train-ngram: values perplexity.bits_per_character, .bits_per_unit, "
        f".unknown; {ANY!r} is for the languages without one",
    )
    checkpoint: Path | None = Field(None, description="folder of a model: value checkpoint.bits_per_byte; slow")
    limits: dict[str, Table] = Field(
        default_factory=dict,
        description="by language and value: what lies outside leaves, as in {en: {quality.good: {min: .1}}}",
    )
    checkpoint_characters: int = Field(4_000, ge=100, description="the checkpoint reads the beginning of a text")

    @model_validator(mode="after")
    def _label_of_a_classifier(self) -> ScoresConfig:
        if self.classifier is None and self.label != "good":
            raise ValueError(f"label={self.label!r} names a label of a classifier; give classifier=FOLDER too")
        return self

    def table(self, language: str) -> dict[str, Limits]:
        """Limits of a language by value."""
        return {name: limits for name, limits in self.limits.get(language, {}).items() if limits is not None}

    @property
    def folders(self) -> list[Path]:
        """All models, for the manifest of what is made with them."""
        found = [self.classifier, *(path for _, path in sorted(self.perplexity.items())), self.checkpoint]
        return [path for path in found if path is not None]


class Scores:
    """All scorers that a configuration names, loaded. Raises `ArtefactError` or `ConfigError` for one that is not."""

    def __init__(self, config: ScoresConfig, toxic: ToxicConfig | None = None) -> None:
        self._scorers: dict[str, Scorer] = {}
        self._quality: str | None = None
        if config.classifier is not None:
            from fledge.corpus.scoring.quality import Classifier

            classifier = Classifier.load(config.classifier)
            classifier.require(config.label, "scores.label")
            self._scorers["quality"] = classifier
            self._quality = f"quality.{config.label}"
        if config.perplexity:
            from fledge.corpus.scoring.ngram import NgramModel

            models: dict[str, Scorer] = {name: NgramModel.load(path) for name, path in config.perplexity.items()}
            self._scorers["perplexity"] = ByLanguage(models)
        if config.checkpoint is not None:
            from fledge.corpus.scoring.checkpoint import Checkpoint

            self._scorers["checkpoint"] = Checkpoint(config.checkpoint, config.checkpoint_characters)
        if toxic is not None:
            self._scorers["toxic"] = Toxicity(toxic)

    def __len__(self) -> int:
        return len(self._scorers)

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        """``{"quality.good": (texts,) float32, ...}``"""
        return {
            f"{prefix}.{name}": values
            for prefix, scorer in self._scorers.items()
            for name, values in scorer.score(texts, languages).items()
        }

    def quality(self, values: dict[str, np.ndarray], texts: int) -> np.ndarray:
        """(texts,) float32 of what `score` gave: by it the survivor of duplicates is chosen; 0 without a classifier."""
        return values[self._quality] if self._quality is not None else np.zeros(texts, np.float32)


class ByLanguage:
    """A scorer for each language: perplexities of different languages, and models, do not compare."""

    def __init__(self, scorers: dict[str, Scorer]) -> None:
        self._scorers = scorers
        self._names: list[str] = sorted({name for scorer in scorers.values() for name in scorer.score([], [])})

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        """NaN where a text's language has no scorer."""
        result = {name: np.full(len(texts), np.nan, np.float32) for name in self._names}
        which = [language if language in self._scorers else ANY for language in languages]
        for language, scorer in self._scorers.items():
            places = [i for i, name in enumerate(which) if name == language]
            if places:
                for name, values in scorer.score([texts[i] for i in places], [language] * len(places)).items():
                    result[name][places] = values
        return result
