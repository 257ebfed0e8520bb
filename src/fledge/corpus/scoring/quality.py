"""The quality classifier: which of two or more sets of text a page is like, with a probability.

A hashed n-gram linear model trained in house (`fledge train-classifier`), in the spirit of fastText's supervised mode,
which the filters of CCNet's successors and of DCLM (arXiv 2406.11794, section 4.4) use. No model is shipped and none is
downloaded: what is good is for the user to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fledge.core.errors import ConfigError
from fledge.corpus.scoring.features import Features, FeaturesConfig
from fledge.corpus.scoring.folder import Format
from fledge.corpus.scoring.linear import Linear, softmax

FORMAT = Format("fledge-text-classifier", 2, "text classifier", "fledge train-classifier")
_BATCH = 128  # texts whose words are in memory together: beyond it nothing is gained


@dataclass
class Classifier:
    """Probabilities of labels. ``temperature`` divides the logits: fitted on texts that the weights never saw."""

    labels: tuple[str, ...]
    features: Features
    linear: Linear
    temperature: float = 1.0

    def logits(self, texts: Sequence[str], languages: Sequence[str] | None = None) -> np.ndarray:
        """(texts, labels) float64, divided by the temperature. A text's row does not depend on its neighbours."""
        if languages is None:
            languages = [""] * len(texts)
        parts = [np.empty((0, len(self.labels)))]
        for at in range(0, len(texts), _BATCH):
            buckets, starts = self.features(texts[at : at + _BATCH], languages[at : at + _BATCH])
            parts.append(self.linear.logits(buckets, starts))
        return np.concatenate(parts) / self.temperature

    def scores(self, texts: Sequence[str], languages: Sequence[str] | None = None) -> np.ndarray:
        """(texts, labels) float32 probabilities, rows sum to 1."""
        return softmax(self.logits(texts, languages)).astype(np.float32)

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        """Values for the corpus: ``{label: (texts,) float32}``."""
        found = self.scores(texts, languages)
        return {label: found[:, number] for number, label in enumerate(self.labels)}

    def require(self, label: str, key: str) -> None:
        """Raises `ConfigError` naming ``key`` where the classifier has no such label."""
        if label not in self.labels:
            raise ConfigError(f"{key}: the classifier has no label {label!r}; it has {', '.join(self.labels)}")

    def save(self, folder: Path) -> None:
        values = {
            "labels": list(self.labels), "temperature": self.temperature, "features": self.features.config.plain(),
        }  # fmt: skip
        FORMAT.save(folder, values, {"weight": self.linear.weight, "bias": self.linear.bias})

    @classmethod
    def load(cls, folder: Path | str) -> Classifier:
        """Raises `ArtefactError` for a folder that is missing, damaged or something else."""
        folder = Path(folder).expanduser()
        with FORMAT.load(folder) as (values, tensors):
            features = FeaturesConfig.model_validate(values["features"])
            labels, temperature = tuple(values["labels"]), float(values["temperature"])
            linear = Linear(tensors["weight"], tensors["bias"])
            if linear.weight.shape != (len(labels), features.buckets + 1) or linear.bias.shape != (len(labels),):
                raise ValueError(f"weight is {linear.weight.shape}, which does not fit the configuration")
            return cls(labels, Features(features), linear, temperature)
