"""Abuse: a short list of ordinary insults in English and Chinese, and how dense they stand; and a classifier, if given.

A word that also has an innocent use (garbage, loser, 垃圾) weighs less, and at most as much as the insults beside
it: it never drops a page alone. A page is dropped for density, not for one word. The list finds open abuse and
nothing subtle; a classifier trained on abuse of the user's own choice (`fledge train-classifier toxic=PATH
clean=PATH`) finds what it was shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.text.tokens import han_count

VERSION = 2
_STRONG_EN = (
    "asshole", "bastard", "bitch", "bullshit", "cunt", "dickhead", "dipshit", "dumbass", "fuck", "fucked", "fucker",
    "fucking", "jackass", "moron", "motherfucker", "piss off", "prick", "retard", "scumbag", "shithead", "slut",
    "twat", "wanker", "whore", "imbecile", "cretin", "dimwit", "halfwit", "nitwit", "lowlife", "scum", "vermin",
    "kill yourself", "drop dead", "shut up", "go to hell", "worthless", "pathetic", "dumb", "stupid",
    "idiot", "idiots", "morons", "disgusting",
)  # fmt: skip
_WEAK_EN = (
    "crap", "damn", "hate", "hell", "ugly", "trash", "garbage", "fool", "fools", "clown", "useless", "filthy", "loser",
    "losers",
)  # fmt: skip
_STRONG_ZH = (
    "傻逼", "傻b", "煞笔", "操你", "草泥马", "他妈的", "妈的", "滚蛋", "滚开", "去死", "该死", "王八蛋", "混蛋",
    "混账", "贱人", "贱货", "婊子", "白痴", "弱智", "脑残", "智障", "蠢货", "蠢猪", "废物", "人渣", "畜生",
    "狗东西", "不要脸", "恶心", "闭嘴", "猪脑子", "饭桶", "垃圾人", "神经病", "傻瓜", "笨蛋", "丑八怪", "下贱",
    "无耻", "败类", "窝囊废", "没用的东西", "滚出去", "狗屁", "放屁", "蠢驴", "蠢蛋", "真蠢", "太蠢",
)  # fmt: skip
_WEAK_ZH = ("垃圾", "讨厌", "愚蠢", "可恶", "卑鄙", "丢人")


def _english(words: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, longest_first)) + r")\b")


def _chinese(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)))


_STRONG = ((_STRONG_EN, _english(_STRONG_EN), 1.0), (_STRONG_ZH, _chinese(_STRONG_ZH), 1.0))
_WEAK = ((_WEAK_EN, _english(_WEAK_EN), 0.4), (_WEAK_ZH, _chinese(_WEAK_ZH), 0.4))
Lists = tuple[tuple[tuple[str, ...], re.Pattern[str], float], ...]
_LATIN_WORD = re.compile(r"[A-Za-z]+")


class ToxicConfig(Config):
    """When a page counts as abuse: the weight of its insults per 100 words, and in all."""

    density: float = Field(1.5, description="weight of insults per 100 words (two Han characters count as a word)")
    least: float = Field(2.0, description="pages with less weight in all are let pass")
    classifier: Path | None = Field(None, description="folder made by train-classifier, beside the list")
    label: str = Field("toxic", description="label of the classifier that stands for abuse")
    probability: float = Field(0.9, gt=0, le=1, description="a page that the classifier is surer of is dropped")


def _weight(lower: str, lists: Lists) -> float:
    # Looking for each word as it is costs far less than the pattern, and most pages have none.
    return sum(each * len(pattern.findall(lower)) for words, pattern, each in lists if any(w in lower for w in words))


def toxicity(text: str) -> tuple[float, float]:
    """(weight of insults per 100 words, weight in all)."""
    lower = text.lower()
    strong, weak = _weight(lower, _STRONG), _weight(lower, _WEAK)
    if strong == 0:
        return 0.0, 0.0
    weight = strong + min(weak, strong)
    words = len(_LATIN_WORD.findall(text)) + han_count(text) / 2
    return 100 * weight / max(words, 1.0), weight


class Toxicity:
    """The list, and the classifier where the configuration names one."""

    def __init__(self, config: ToxicConfig) -> None:
        """Raises `ArtefactError` or `ConfigError` for a classifier that cannot be used."""
        self.config = config
        self._classifier = None
        if config.classifier is not None:
            from fledge.corpus.scoring.quality import Classifier

            self._classifier = Classifier.load(config.classifier)
            self._classifier.require(config.label, "toxic.label")

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        """``density`` and ``weight`` of the list, ``probability`` of the classifier: each (texts,) float32."""
        found = np.array([toxicity(text) for text in texts], np.float32).reshape(-1, 2)
        result = {"density": found[:, 0], "weight": found[:, 1]}
        if self._classifier is not None:
            result["probability"] = self._classifier.score(texts, languages)[self.config.label]
        return result

    def broken(self, density: float, weight: float, probability: float = 0.0) -> tuple[str, float, float] | None:
        """(rule, value, threshold) by which a page with these values is dropped, or None."""
        config = self.config
        if density > config.density and weight >= config.least:
            return "insults", density, config.density
        if probability > config.probability:
            return "classifier", probability, config.probability
        return None
