"""Stage ``train-classifier``: two or more sets of text -> a classifier that says which of them a page is like.

Writes ``config.json``, ``model.safetensors`` and ``report.json`` (held-out accuracy, area under the curve, calibration,
thresholds, telling n-grams). The sets are read as a corpus reads its inputs; what cannot be read is counted.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from fledge.core import config as core_config
from fledge.core.artefact import produce, write_json
from fledge.core.bench import Bench
from fledge.core.errors import ConfigError, DataError
from fledge.core.progress import progress
from fledge.corpus.reading.read import ReadConfig
from fledge.corpus.reading.texts import content_hash, files_of, read_texts
from fledge.corpus.scoring.features import Features, FeaturesConfig, script
from fledge.corpus.scoring.linear import FitConfig, fit

if TYPE_CHECKING:
    from fledge.corpus.scoring.quality import Classifier

REPORT = "report.json"
LEAST = 30  # texts of a label: fewer make no classifier, and no held-out set that says anything
WEAK = 0.6  # an area under the curve below it is told
_SECONDS_PER_BYTE = 4e-7  # of text, read and fitted in five passes


class Config(core_config.Config):
    """What is told apart, by which features, and how it is learned."""

    labels: dict[str, tuple[str, ...]] = Field(description="label -> files, folders, globs, or corpora made by fledge")
    documents: int = Field(50_000, ge=LEAST, description="most texts of a label; drawn by content and seed from more")
    held_out: float = Field(
        0.2, gt=0, lt=0.9, description="share kept from training: half sets the temperature, half is reported on"
    )
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    fit: FitConfig = Field(default_factory=FitConfig)
    read: ReadConfig = Field(default_factory=ReadConfig)
    seed: int = 0

    @field_validator("labels")
    @classmethod
    def _several(cls, given: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if len(given) < 2:
            raise ValueError("a classifier needs two labels or more, such as good=PATH bad=PATH")
        empty = [name for name, paths in given.items() if not paths]
        if empty:
            raise ValueError(f"{empty[0]}: names no files")
        return given


def run(config: Config, out: Path, redo: bool = False) -> Path:
    """Train, measure, write."""
    files = {name: files_of(paths, config.read) for name, paths in config.labels.items()}
    with produce(
        out, kind="classifier", stage="train-classifier", config=config, inputs=files, seed=config.seed, redo=redo
    ) as work:
        if not work.done:
            texts = {name: Sample(config, paths) for name, paths in config.labels.items()}
            both = _without_shared(texts)
            _refuse(texts, both)
            work.metrics |= _make(config, texts, work.folder) | {
                "read": {name: sample.read for name, sample in texts.items()},
                "refused": {name: dict(sample.refused) for name, sample in texts.items()},
                "repeated": {name: sample.repeated for name, sample in texts.items()},
                "under_several_labels": both,
            }
    return out


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Seconds, where the files are there already."""
    try:
        size = sum(path.stat().st_size for paths in config.labels.values() for path in files_of(paths, config.read))
    except ConfigError:
        return {}
    return {"bytes": size, "seconds": 1.0 + size * _SECONDS_PER_BYTE}


class Sample:
    """At most so many different texts of a label, those with the least hashes: a fair draw that does not depend on the
    order of files. ``texts`` holds them by hash."""

    def __init__(self, config: Config, paths: tuple[str, ...]) -> None:
        self.refused: Counter[str] = Counter()
        self.read = self.repeated = 0
        self.texts: dict[int, str] = {}
        worst: list[int] = []  # hashes kept, negative: the greatest comes first
        for text in read_texts(paths, config.read, self.refused):
            self.read += 1
            text = text[: config.features.characters]
            key = content_hash(text, config.seed)
            if key in self.texts:
                self.repeated += 1
                continue
            if len(worst) >= config.documents:
                if key > -worst[0]:
                    continue
                del self.texts[-heapq.heappop(worst)]
            heapq.heappush(worst, -key)
            self.texts[key] = text


def _without_shared(samples: dict[str, Sample]) -> int:
    """Takes texts that stand under several labels from all of them; how many there were."""
    seen = Counter(key for sample in samples.values() for key in sample.texts)
    shared = [key for key, count in seen.items() if count > 1]
    for sample in samples.values():
        for key in shared:
            sample.texts.pop(key, None)
    return len(shared)


def _refuse(samples: dict[str, Sample], shared: int) -> None:
    for name, sample in samples.items():
        left = len(sample.texts)
        if left >= LEAST:
            continue
        reasons = ", ".join(f"{count} {rule}" for rule, count in sample.refused.most_common(3))
        raise DataError(
            f"label {name!r} has {left} different texts of its own, and a classifier needs {LEAST} or more: "
            f"{sample.read} were read, {sample.repeated} of them again, {shared} stand under several labels"
            + (f"; not read: {reasons}" if reasons else "")
        )


@dataclass(frozen=True)
class _Texts:
    """All texts in the order of their hashes, (n,) label, script, weight, and the part of the work that each is for."""

    texts: list[str]
    labels: np.ndarray
    scripts: list[str]
    weight: np.ndarray
    trained: np.ndarray
    tuned: np.ndarray
    tested: np.ndarray

    def some(self, chosen: np.ndarray) -> tuple[list[str], list[str]]:
        """Texts and scripts of a part."""
        places = np.flatnonzero(chosen).tolist()
        return [self.texts[i] for i in places], [self.scripts[i] for i in places]


def _split(config: Config, samples: dict[str, Sample]) -> _Texts:
    rows = sorted((key, label, text) for label, one in enumerate(samples.values()) for key, text in one.texts.items())
    labels = np.array([label for _, label, _ in rows])
    scripts = [script(text) for _, _, text in rows]
    part = np.empty(len(rows), np.float64)
    for label in range(len(samples)):  # by rank among its own: every label has its share of each part
        own = labels == label
        part[own] = np.arange(own.sum()) / own.sum()
    trained, tuned = part >= config.held_out, part < config.held_out / 2
    weight = balance(labels, scripts)
    return _Texts([text for _, _, text in rows], labels, scripts, weight, trained, tuned, ~trained & ~tuned)


def _make(config: Config, samples: dict[str, Sample], folder: Path) -> dict[str, Any]:
    from fledge.corpus.scoring.quality import Classifier
    from fledge.corpus.scoring.quality_report import best_temperature

    names, data = tuple(samples), _split(config, samples)
    features = Features(config.features)
    buckets, starts = features(*data.some(data.trained))
    with progress("train-classifier", (len(starts) - 1) * config.fit.epochs, unit="texts") as bar:
        linear = fit(
            buckets, starts, data.labels[data.trained], data.weight[data.trained], config.features.buckets,
            config.fit, config.seed, bar.advance,
        )  # fmt: skip
    classifier = Classifier(names, features, linear)
    logits = classifier.logits(*data.some(data.tuned))
    classifier.temperature = best_temperature(logits, data.labels[data.tuned], data.weight[data.tuned])
    classifier.save(folder)
    report = _report(classifier, data)
    write_json(folder / REPORT, report)
    kept = ("texts", "accuracy", "nats", "auc", "calibration_error", "temperature", "training_accuracy", "by_script")
    used = np.bincount(buckets.ravel(), minlength=config.features.buckets)[: config.features.buckets]
    return {
        "trained_on": {name: int((data.labels[data.trained] == n).sum()) for n, name in enumerate(names)},
        "held_out": {key: report[key] for key in kept},
        "buckets_used": int(np.count_nonzero(used)),
        "weak": min(report["auc"].values()) < WEAK,
    }


def _report(classifier: Classifier, data: _Texts) -> dict[str, Any]:
    from fledge.corpus.scoring.quality_report import measure, telling

    names = classifier.labels
    scores, scripts = classifier.scores(data.texts, data.scripts), np.array(data.scripts)

    def of(chosen: np.ndarray) -> dict[str, Any]:
        return measure(scores[chosen], data.labels[chosen], data.weight[chosen], names)

    report = of(data.tested) | {"temperature": classifier.temperature}
    report["training_accuracy"] = of(data.trained)["accuracy"]
    report["by_script"] = {}
    for name in sorted(set(data.scripts)):
        chosen = data.tested & (scripts == name)
        if len(np.unique(data.labels[chosen])) == len(names):
            report["by_script"][name] = {key: of(chosen)[key] for key in ("texts", "accuracy", "auc")}
    report["telling"] = telling(classifier, *data.some(data.trained))
    return report


def balance(labels: np.ndarray, languages: list[str]) -> np.ndarray:
    """(texts,) weights, mean 1, under which in every script each label counts the same; else a set with more Chinese
    than the other would teach that Chinese is good. A script that only one label has cannot be balanced and keeps 1."""
    names = np.array(languages)
    weight = np.ones(len(labels))
    present = np.unique(labels)
    for name in np.unique(names):
        inside = names == name
        sizes = np.array([(inside & (labels == label)).sum() for label in present])
        if (sizes > 0).all():
            for label, size in zip(present, sizes, strict=True):
                weight[inside & (labels == label)] = inside.sum() / (len(present) * size)
    return weight
