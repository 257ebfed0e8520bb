"""Stage ``train-classifier``: two or more sets of text -> a classifier that says which of them a page is like.

Writes ``config.json``, ``model.safetensors`` and ``report.json`` (held-out accuracy, area under the curve, calibration,
thresholds, telling n-grams). The sets are read as a corpus reads its inputs; what cannot be read is counted.
"""

from __future__ import annotations

import heapq
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from fledge.core import config as core_config
from fledge.core.artefact import produce, write_json
from fledge.core.bench import Bench
from fledge.core.errors import ConfigError, DataError
from fledge.core.progress import progress
from fledge.corpus.features import FeaturesConfig
from fledge.corpus.linear import FitConfig
from fledge.corpus.read import ReadConfig
from fledge.corpus.texts import content_hash, files_of, read_texts

REPORT = "report.json"
LEAST = 30  # texts of a label: fewer make no classifier, and no held-out set that says anything
_WEAK = 0.6  # an area under the curve below it is told
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


def _make(config: Config, samples: dict[str, Sample], folder: Path) -> dict[str, Any]:
    from fledge.corpus.features import Features, script
    from fledge.corpus.linear import fit
    from fledge.corpus.quality import Classifier
    from fledge.corpus.quality_report import best_temperature, measure, telling

    names = tuple(samples)
    rows = sorted((key, label, text) for label, name in enumerate(names) for key, text in samples[name].texts.items())
    labels = np.array([label for _, label, _ in rows])
    texts = [text for _, _, text in rows]
    languages = [script(text) for text in texts]
    weight = balance(labels, languages)
    # By rank among the label's own: every label has its share of each part, whatever the hashes are.
    part = np.empty(len(rows), np.float64)
    for label in range(len(names)):
        own = labels == label
        part[own] = np.arange(own.sum()) / own.sum()
    trained, tuned = part >= config.held_out, part < config.held_out / 2
    tested = ~trained & ~tuned
    features = Features(config.features)
    inside = np.flatnonzero(trained).tolist()
    buckets, starts = features([texts[i] for i in inside], [languages[i] for i in inside])
    with progress("train-classifier", len(inside) * config.fit.epochs, unit="texts") as bar:
        linear = fit(
            buckets, starts, labels[trained], weight[trained], config.features.buckets, config.fit, config.seed,
            bar.advance,
        )  # fmt: skip
    classifier = Classifier(names, features, linear)
    logits = classifier.logits(texts, languages)
    classifier.temperature = best_temperature(logits[tuned], labels[tuned], weight[tuned])
    classifier.save(folder)
    scores = classifier.scores(texts, languages)
    report = measure(scores[tested], labels[tested], weight[tested], names)
    by_script = {
        name: measure(scores[chosen], labels[chosen], weight[chosen], names)
        for name in sorted(set(languages))
        if all((chosen := tested & (np.array(languages) == name))[labels == label].any() for label in range(len(names)))
    }
    training = measure(scores[trained], labels[trained], weight[trained], names)
    report |= {"temperature": classifier.temperature, "training_accuracy": training["accuracy"]}
    report["telling"] = telling(classifier, [texts[i] for i in inside], [languages[i] for i in inside])
    report["by_script"] = {name: {key: one[key] for key in ("texts", "accuracy", "auc")} for name, one in by_script.items()}
    write_json(folder / REPORT, report)
    kept = ("texts", "accuracy", "nats", "auc", "calibration_error", "temperature", "training_accuracy", "by_script")
    weak = min(report["auc"].values()) < _WEAK
    return {
        "trained_on": {name: int((trained & (labels == n)).sum()) for n, name in enumerate(names)},
        "held_out": {key: report[key] for key in kept},
        "buckets_used": int(np.count_nonzero(np.bincount(buckets.ravel(), minlength=1)[: config.features.buckets])),
        "weak": weak,
    }  # fmt: skip


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
