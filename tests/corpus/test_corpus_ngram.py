"""Modified Kneser-Ney: against the equations written out slowly, and on text."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from corpus_pages import CHINESE, ENGLISH

from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError, DataError
from fledge.corpus.scoring.folder import WEIGHTS
from fledge.corpus.scoring.ngram import NgramModel, framed
from fledge.corpus.scoring.ngram_count import Counted, count_model, discounts
from fledge.corpus.scoring.units import END, START, UNKNOWN, Units, UnitsConfig
from fledge.stages import ngram as stage

START_MARK, END_MARK = "<s>", "</s>"


class Slow:
    """Chen and Goodman (1998), equation 27 and the definitions around it, on lists and dictionaries of words."""

    def __init__(self, texts: list[list[str]], order: int) -> None:
        self.order = order
        self.vocabulary = sorted({word for text in texts for word in text} | {END_MARK, "<unknown>"})
        padded = [[START_MARK] * (order - 1) + text + [END_MARK] for text in texts]
        highest: Counter[tuple[str, ...]] = Counter(
            tuple(text[i : i + order]) for text in padded for i in range(len(text) - order + 1)
        )
        self.counts = {order: highest}
        for k in range(order - 1, 0, -1):  # the different units in front of each n-gram
            fronts: dict[tuple[str, ...], set[str]] = defaultdict(set)
            grams = {tuple(text[i : i + k + 1]) for text in padded for i in range(len(text) - k)}
            for gram in grams:
                if gram[-1] != START_MARK:
                    fronts[gram[1:]].add(gram[0])
            self.counts[k] = Counter({gram: len(front) for gram, front in fronts.items()})
        self.d = {k: self.discount(counts) for k, counts in self.counts.items()}

    @staticmethod
    def discount(counts: Counter[tuple[str, ...]]) -> tuple[float, float, float]:
        n1, n2, n3, n4 = (sum(count == i for count in counts.values()) for i in (1, 2, 3, 4))
        if not (n1 and n2 and n3 and n4):
            return 0.5, 1.0, 1.5
        y = n1 / (n1 + 2 * n2)
        found = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        return found if all(0 <= d <= i for i, d in enumerate(found, 1)) else (0.5, 1.0, 1.5)

    def p(self, word: str, history: tuple[str, ...]) -> float:
        k = len(history) + 1
        lower = self.p(word, history[1:]) if history else 1 / len(self.vocabulary)
        followers = {gram[-1]: c for gram, c in self.counts[k].items() if gram[:-1] == history}
        total = sum(followers.values())
        if not total:
            return lower
        d1, d2, d3 = self.d[k]
        count = followers.get(word, 0)
        taken = min(count, (0, d1, d2, d3)[min(count, 3)])
        n1, n2 = (sum(c == i for c in followers.values()) for i in (1, 2))
        n3 = len(followers) - n1 - n2
        return (count - taken) / total + (d1 * n1 + d2 * n2 + d3 * n3) / total * lower


def toy(seed: int, texts: int = 60) -> list[list[str]]:
    """Words of very different frequency, with habits, so that all counts from one to many occur."""
    rng = random.Random(seed)
    words = list("abcdefghijklmnop")
    result = []
    for _ in range(texts):
        text = [rng.choice(words[:4])]
        for _ in range(rng.randint(0, 14)):
            at = words.index(text[-1])
            text.append(words[(at + rng.choice((1, 1, 1, 2, 3))) % 16] if rng.random() < 0.6 else rng.choice(words[:9]))
        result.append(text)
    return result


def counted(texts: list[list[str]], order: int, prune: int = 0, least: int = 1) -> Counted:
    units = Units(UnitsConfig())
    hashes, lengths, _ = units([" ".join(text) for text in texts])
    assert lengths.tolist() == [len(text) for text in texts]
    return count_model(units, hashes, lengths, order, prune, least)


def number(model: NgramModel, word: str) -> int:
    if word in (START_MARK, END_MARK, "<unknown>"):
        return {START_MARK: START, END_MARK: END, "<unknown>": UNKNOWN}[word]
    return int(model.numbers(model.units([word])[0])[0])


def after(model: NgramModel, history: list[int]) -> np.ndarray:
    """Probabilities of all numbers but the start after a history."""
    sequence = np.array([[*history, w] for w in range(1, model.size)]).ravel()
    return np.exp2(model.log2(sequence)[len(history) :: len(history) + 1])


@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_are_those_of_the_equations(order: int) -> None:
    texts = toy(order)
    slow, found = Slow(texts, order), counted(texts, order)
    model = found.model
    assert model.size == len(slow.vocabulary) + 1
    assert [pytest.approx(slow.d[k]) for k in range(1, order + 1)] == found.discounts
    assert order not in found.fallback, "the toy must be large enough to estimate discounts"
    rng = random.Random(1)
    histories = {gram[:-1] for gram in slow.counts[order]} | {
        tuple(rng.choice(slow.vocabulary) for _ in range(order - 1)) for _ in range(40)
    }
    for history in rng.sample(sorted(histories), min(60, len(histories))):
        numbers = [number(model, word) for word in history]
        values = after(model, numbers)
        assert values.sum() == pytest.approx(1, abs=1e-6)
        for word in rng.sample(slow.vocabulary, 6):
            assert values[number(model, word) - 1] == pytest.approx(slow.p(word, history), rel=1e-5), (history, word)


def test_bits_of_a_text_are_those_of_its_units() -> None:
    texts = toy(9)
    slow, model = Slow(texts, 3), counted(texts, 3).model
    for text in (["a", "b", "c"], ["p", "zebra", "a"], []):
        known = [word if word in slow.vocabulary else "<unknown>" for word in text]
        padded = [START_MARK, START_MARK, *known, END_MARK]
        expected = -sum(math.log2(slow.p(padded[i], tuple(padded[i - 2 : i]))) for i in range(2, len(padded)))
        together = model.bits(["b a b", " ".join(text), "d"])
        assert together["bits"][1] == pytest.approx(expected, rel=1e-6)
        assert together["units"][1] == len(text) + 1
        assert together["unknown"][1] == ("zebra" in text)


@pytest.mark.parametrize("prune", [1, 3])
def test_pruned_probabilities_still_sum_to_one(prune: int) -> None:
    texts = toy(4, 200)
    whole, less = counted(texts, 4), counted(texts, 4, prune)
    assert less.ngrams[:2] == whole.ngrams[:2]
    assert less.ngrams[3] < whole.ngrams[3]
    assert less.ngrams[3] + less.pruned[3] == whole.ngrams[3]
    sequence, _ = framed(np.arange(3, 12), np.array([9]), 4)
    for history in (sequence[:3], sequence[1:4], sequence[4:7]):
        assert after(less.model, history.tolist()).sum() == pytest.approx(1, abs=1e-6)


def test_discounts() -> None:
    n1, n2, n3, n4 = 40, 20, 10, 6
    counts = np.repeat([1, 2, 3, 4, 9], [n1, n2, n3, n4, 5])
    y = n1 / (n1 + 2 * n2)
    assert discounts(counts) == ((1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3), True)
    assert discounts(np.array([1, 1, 2])) == ((0.5, 1.0, 1.5), False)


def write(folder: Path, name: str, texts: list[str]) -> str:
    path = folder / name
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return str(path)


def made(folder: Path, **values: object) -> tuple[NgramModel, dict[str, object]]:
    stage.run(build(stage.Config, values), folder)
    return NgramModel.load(folder), read_manifest(folder)["metrics"]


def test_the_stage_on_english_and_on_chinese(tmp_path: Path) -> None:
    english = write(tmp_path, "en.txt", [ENGLISH] * 3)
    model, metrics = made(tmp_path / "en", data=[english], order=3, least=1)
    assert metrics["texts"] == 1
    same, other = model.score([ENGLISH, "Purple engines quietly calculate seven hidden mountains."], ["en"] * 2)[
        "bits_per_unit"
    ]
    assert 0 < same < 3 < other
    chinese = write(tmp_path, "zh.txt", [CHINESE] * 2)
    model, _ = made(tmp_path / "zh", data=[chinese], order=4, units={"kind": "characters"}, least=1)
    found = model.score([CHINESE, "机器学习模型需要大量数据。", ""], ["zh"] * 3)
    assert found["bits_per_character"][0] < 2 < found["bits_per_character"][1]
    assert np.isfinite(found["bits_per_unit"]).all()
    assert found["unknown"][1] > 0.2


def test_the_same_texts_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    for name, files in (("a", (1, 2, 3)), ("b", (3, 1, 2))):
        folder = tmp_path / name
        folder.mkdir()
        texts = {1: ENGLISH, 2: ENGLISH[::-1], 3: CHINESE}
        for place, which in enumerate(files):
            (folder / f"{place}.txt").write_text(texts[which], encoding="utf-8")
        made(tmp_path / f"{name}-model", data=[str(folder)], least=1)
    assert (tmp_path / "a-model" / WEIGHTS).read_bytes() == (tmp_path / "b-model" / WEIGHTS).read_bytes()


def test_what_cannot_be_counted_is_refused(tmp_path: Path) -> None:
    empty = write(tmp_path, "empty.txt", [" "])
    with pytest.raises(DataError, match=r"no text to count.*1 empty"):
        made(tmp_path / "m", data=[empty])
    with pytest.raises(ConfigError, match="tokenizer"):
        build(stage.Config, {"data": ["x"], "units": {"kind": "tokens"}})
    with pytest.raises(ArtefactError, match=r"config\.json"):
        NgramModel.load(tmp_path)
