"""The quality classifier: it learns what differs, says how sure it may be, and is the same at any batch and order."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_pages import CHINESE, ENGLISH

from fledge.commands.classifier import described, read_words
from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError, DataError
from fledge.corpus.scoring.features import Features, FeaturesConfig, script
from fledge.corpus.scoring.folder import WEIGHTS
from fledge.corpus.scoring.linear import FitConfig, Linear, counts, fit, softmax
from fledge.corpus.scoring.quality import Classifier
from fledge.corpus.scoring.quality_report import auc, best_temperature, calibration
from fledge.corpus.scoring.words import hash_words, prepared, words_of
from fledge.stages import classifier as stage

SHOP = ("buy cheap", "watches now", "|", "free shipping", "|", "click here", "add to cart", "best price", "50% off")
STORE = ("便宜", "手表", "点击", "购买", "包邮", "优惠", "下单", "热卖", "抢购", "客服")


def prose(rng: random.Random, language: str) -> str:
    if language == "zh":
        return "".join(rng.choice(CHINESE.split("。")[:-1]) + "。" for _ in range(4))
    words = ENGLISH.split()
    at = rng.randrange(len(words) - 30)
    return " ".join(words[at : at + 30]) + f" {rng.choice(words)}."


def shop(rng: random.Random, language: str) -> str:
    return " ".join(rng.choice(STORE if language == "zh" else SHOP) for _ in range(30))


def write_sets(folder: Path, number: int = 150, seed: int = 0, reverse: bool = False) -> dict[str, str]:
    """Two files of lines: prose and shops, English and Chinese, with more Chinese among the shops."""
    rng = random.Random(seed)
    rows = {
        "good": [prose(rng, "zh" if i % 5 == 0 else "en") for i in range(number)],
        "bad": [shop(rng, "zh" if i % 2 else "en") for i in range(number)],
    }
    for name, texts in rows.items():
        texts = texts[::-1] if reverse else texts
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return {name: str(folder / f"{name}.jsonl") for name in rows}


def make(out: Path, labels: dict[str, Any], **values: Any) -> dict[str, Any]:
    plain = {name: (paths,) if isinstance(paths, str) else paths for name, paths in labels.items()}
    stage.run(build(stage.Config, {"labels": plain, "features": {"bits": 14}, **values}), out)
    return dict(read_manifest(out)["metrics"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    make(folder / "c", write_sets(folder))
    return folder / "c"


def test_it_tells_prose_from_shops(trained: Path) -> None:
    held = read_manifest(trained)["metrics"]["held_out"]
    assert held["accuracy"] > 0.95
    assert held["auc"]["good"] > 0.98
    assert set(held["by_script"]) == {"other", "zh"}
    classifier = Classifier.load(trained)
    rng = random.Random(5)
    for language in ("en", "zh"):
        good, bad = classifier.score([prose(rng, language), shop(rng, language)], [language] * 2)["good"]
        assert good > 0.8 > 0.2 > bad, language
    assert classifier.scores([]).shape == (0, 2)
    assert np.isfinite(classifier.scores(["", "\0", "🙂"])).all()


def test_the_report_names_what_speaks_for_a_label(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text(encoding="utf-8"))
    said = {row["ngram"] for row in report["telling"]["bad"]}
    assert said & {"|", "click", "cart", "shipping", "购", "点", "手 表", "优 惠"}
    assert "." in {row["ngram"] for row in report["telling"]["good"]} | {"."}
    shown = described(trained)
    for word in ("accuracy", "calibration error", "area under the curve", "speaks for it"):
        assert word in shown


def test_neighbours_do_not_change_a_score(trained: Path) -> None:
    classifier = Classifier.load(trained)
    rng = random.Random(2)
    texts = [prose(rng, "en") if i % 3 else shop(rng, "zh") for i in range(300)] + ["", "x"]
    together = classifier.scores(texts)
    alone = np.concatenate([classifier.scores([text]) for text in texts])
    assert (together == alone).all()
    assert (classifier.scores(texts[::-1])[::-1] == together).all()
    assert together.sum(axis=1) == pytest.approx(1, abs=1e-6)


def test_the_same_texts_give_the_same_bytes(tmp_path: Path, trained: Path) -> None:
    labels = write_sets(tmp_path, reverse=True)
    make(tmp_path / "again", labels)
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (trained / WEIGHTS).read_bytes()
    make(tmp_path / "other", labels, seed=1)
    assert (tmp_path / "other" / WEIGHTS).read_bytes() != (trained / WEIGHTS).read_bytes()


def test_a_language_is_not_a_quality(trained: Path) -> None:
    """The shops have more Chinese than the prose; Chinese prose is not the worse for it."""
    rng = random.Random(8)
    found = Classifier.load(trained).score([prose(rng, "zh") for _ in range(20)], ["zh"] * 20)["good"]
    assert found.min() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sets: {**sets, "good": sets["bad"]}, "stand under several labels"),
        (lambda sets: {**sets, "good": sets["few"]}, "has 2 different texts"),
        (lambda sets: {**sets, "good": sets["same"]}, "99 of them again"),
        (lambda sets: {**sets, "good": sets["none"]}, "not read: 40 no_text"),
    ],
)
def test_degenerate_sets_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    sets = write_sets(tmp_path, 40)
    rows = {"few": [{"text": "a"}, {"text": "b"}], "same": [{"text": ENGLISH}] * 100, "none": [{"body": "x"}] * 40}
    for name, values in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, values)), encoding="utf-8")
        sets[name] = str(tmp_path / f"{name}.jsonl")
    with pytest.raises(DataError, match=message):
        make(tmp_path / "c", {name: path for name, path in change(sets).items() if name in ("good", "bad")})


def test_sets_that_are_alike_are_called_so(tmp_path: Path) -> None:
    for name, seed in (("good", 1), ("bad", 2)):
        rng = random.Random(seed)
        lines = [json.dumps({"text": prose(rng, "en") + str(i)}) for i in range(200)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    metrics = make(tmp_path / "c", {name: str(tmp_path / f"{name}.jsonl") for name in ("good", "bad")})
    assert metrics["held_out"]["auc"]["good"] < 0.75
    assert metrics["held_out"]["nats"] < 0.8, "it must not be sure of what it does not know"
    assert metrics["weak"] == ("little more than chance" in described(tmp_path / "c"))


def test_three_labels(tmp_path: Path) -> None:
    labels = write_sets(tmp_path)
    rng = random.Random(3)
    code = [json.dumps({"text": f"def f{i}(x):\n    return x + {rng.randint(0, 9)}\n" * 3}) for i in range(100)]
    (tmp_path / "code.jsonl").write_text("\n".join(code), encoding="utf-8")
    held = make(tmp_path / "c", {**labels, "code": str(tmp_path / "code.jsonl")})["held_out"]
    assert set(held["auc"]) == {"good", "bad", "code"}
    assert held["accuracy"] > 0.9


def test_words_of_a_limit_are_read_as_labels_or_keys(tmp_path: Path) -> None:
    sets = write_sets(tmp_path, 40)
    config = read_words([f"good={sets['good']}", f"good={sets['bad']}", f"bad={sets['bad']}", "fit.epochs=2", "seed=4"])
    values = config.model_dump()
    assert values["labels"] == {"good": (sets["good"], sets["bad"]), "bad": (sets["bad"],)}
    assert (values["fit"]["epochs"], values["seed"]) == (2, 4)
    with pytest.raises(ConfigError, match="did you mean 'documents'"):
        read_words([f"good={sets['good']}", f"bad={sets['bad']}", "document=5"])
    with pytest.raises(ConfigError, match="two labels or more"):
        read_words([f"good={sets['good']}"])
    with pytest.raises(ConfigError, match="name sets of text"):
        read_words([])


def test_a_folder_that_is_no_classifier(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ArtefactError, match=r"config\.json"):
        Classifier.load(tmp_path)
    for name in ("config.json", WEIGHTS):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / WEIGHTS).write_bytes((trained / WEIGHTS).read_bytes()[:2000])
    with pytest.raises(ArtefactError, match="cannot be read as a text classifier"):
        Classifier.load(tmp_path)
    with pytest.raises(ConfigError, match="no label 'toxic'"):
        Classifier.load(trained).require("toxic", "toxic.label")


def test_ngrams_end_with_their_text() -> None:
    features = Features(FeaturesConfig(bits=20, order=3))
    texts = ["one two three four", "", "five", "one two three four"]
    buckets, starts = features(texts, [""] * 4)
    assert starts.tolist() == [0, 5, 6, 8, 13]
    assert (buckets[starts[0] : starts[1]] == buckets[starts[3] :]).all()
    missing = buckets == features.config.buckets
    assert missing.sum(axis=0).tolist() == [0, 4, 7], "of a text of n words n - 1 pairs and n - 2 threes are there"
    assert counts(buckets, starts, features.config.buckets).tolist() == [12, 1, 3, 12]


def test_words() -> None:
    assert words_of(prepared("The Cat, ＡＢＣ 1984!\n你好 x_y\0é🙂", "", "characters")) == [
        "the", "cat", ",", "abc", "0000", "!", "\n", "你", "好", "x", "_", "y", "é", "🙂", "\0",
    ]  # fmt: skip
    cut = words_of(prepared("今天天气很好。ok", "zh", "words"), "words")
    assert cut == ["今天天气", "很", "好", "。", "ok", "\0"]
    assert [script(text) for text in (ENGLISH, CHINESE, "", "苹果 apple pie")] == ["other", "zh", "other", "other"]


def test_hashes_are_of_words_wherever_they_stand() -> None:
    texts = ["b a b", "", "a", "1984 a 2024 c 20 " + "x" * 300, "x" * 299 + "y"]
    hashes, starts = hash_words(texts)
    words = [word for text in texts for word in words_of(text)]
    assert starts.tolist() == [0, 4, 5, 7, 14, 16]
    assert len({*zip(words, hashes.tolist(), strict=True)}) == len(set(words)) == len(set(hashes.tolist()))
    assert hash_words([])[1].tolist() == [0]


def test_fit_finds_what_was_planted() -> None:
    """Texts of one word, drawn with known chances: the probabilities are those."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 6000)
    words = np.where(rng.random(6000) < 0.8, labels, 1 - labels).astype(np.int32)[:, None]
    model = fit(words, np.arange(6001), labels, np.ones(6000), 4, FitConfig(epochs=4), 0)
    found = softmax(model.logits(np.array([[0], [1]], np.int32), np.array([0, 1, 2])))
    assert found == pytest.approx(np.array([[0.8, 0.2], [0.2, 0.8]]), abs=0.03)
    assert model.weight[:, 4].tolist() == [0, 0]
    assert isinstance(model, Linear)


def test_measures() -> None:
    positive = np.array([False, False, True, True])
    assert auc(np.array([0.1, 0.4, 0.35, 0.8]), positive) == 0.75
    assert auc(np.zeros(4), positive) == 0.5
    (row,) = calibration(np.array([0.61, 0.69]), np.array([True, False]), np.ones(2))
    assert (row["said"], row["true"]) == (pytest.approx(0.65), 0.5)
    logits = np.repeat([[4.0, 0.0]], 100, axis=0)
    labels = np.arange(100) % 4 == 0  # right three times of four, and as sure as 98%
    assert best_temperature(logits, labels.astype(int), np.ones(100)) == pytest.approx(4 / np.log(3), rel=0.1)
