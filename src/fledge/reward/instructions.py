"""Instructions that a program can check: the 25 kinds of IFEval (2311.07911), written anew from its paper and data.

    follow(["length_constraints:number_words"], [{"relation": "at least", "num_words": 300}], reply) -> [True]

Loose, as there: it also counts if one of seven changed replies follows, without the first line, the last, both, and
each of the four without asterisks (models introduce their answers, and write in bold). An empty reply follows nothing.

In Chinese text a Han character is a word, 。！？ end sentences, ， is a comma, “” and 「」 quote, 《》 is a title.
What differs from IFEval's own program: sentences are split by rules of our own instead of NLTK's model, the language is
told by fastText's model instead of langdetect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
_HAN = re.compile(r"[一-鿿㐀-䶿]")
_WORD = re.compile(r"[一-鿿㐀-䶿]|(?:(?![一-鿿㐀-䶿])\w)+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|Inc|Ltd|e\.g|i\.e|a\.m|p\.m|cf|al)|\b[A-Z](?:\.[A-Z])*)\.$"
)
_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)|[。！？…]+[”’」』）]*")
_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_QUOTES = (("“", "”"), ("「", "」"), ("『", "』"))


@dataclass(frozen=True)
class _Kind:
    check: Callable[[str, Values], bool]
    required: tuple[str, ...] = ()


def kinds() -> list[str]:
    """The kinds of instruction, as IFEval names them."""
    return sorted(_KINDS)


def validate(names: Sequence[str], values: Sequence[Values]) -> None:
    """Raises ValueError for an unknown kind, missing or unusable values."""
    if len(names) != len(values):
        raise ValueError(f"{len(names)} instructions with values for {len(values)}")
    for name, one in zip(names, values, strict=True):
        if name not in _KINDS:
            raise ValueError(f"unknown instruction {name!r}; known: {', '.join(kinds())}")
        missing = [key for key in _KINDS[name].required if one.get(key) is None]
        if missing:
            raise ValueError(f"instruction {name} misses {', '.join(missing)}")
        for key, value in one.items():
            if key.endswith("relation") and value not in _RELATIONS:
                raise ValueError(f"instruction {name}: {key} is {value!r}; known: {', '.join(_RELATIONS)}")


def follow(names: Sequence[str], values: Sequence[Values], reply: str, loose: bool = False) -> list[bool]:
    """Which of the instructions the reply follows. Raises ValueError as `validate` does."""
    validate(names, values)
    texts = [text for text in (_variants(reply) if loose else [reply]) if text.strip()]
    return [
        any(_KINDS[name].check(text, one) for text in texts) for name, one in zip(names, values, strict=True)
    ]  # fmt: skip


def _variants(reply: str) -> list[str]:
    lines = reply.split("\n")
    cut = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(text.replace("*", "") for text in cut)]


# ---- counting --------------------------------------------------------------------------------------------------------

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "less than": lambda count, limit: count < limit,
    "at least": lambda count, limit: count >= limit,
    "at most": lambda count, limit: count <= limit,
    "exactly": lambda count, limit: count == limit,
}


def _holds(count: int, relation: str, limit: int) -> bool:
    return _RELATIONS[relation](count, int(limit))


def words(text: str) -> int:
    """Runs of letters and digits; each Han character."""
    return len(_WORD.findall(text))


def sentences(text: str) -> int:
    """Ends of sentences, and what stands after the last one. Stops of common abbreviations and initials end none."""
    count, start = 0, 0
    for match in _END.finditer(text):
        end = match.end()
        if _ABBREVIATION.search(text[max(start, end - 16) : end].rstrip("\"'”’)]")):
            continue
        count, start = count + (_WORD.search(text, start, end) is not None), end
    return count + (_WORD.search(text, start) is not None)


def _han(text: str) -> bool:
    return _HAN.search(text) is not None


def _found(needle: str, text: str, whole: bool = False) -> int:
    """Times that a text occurs, whatever its case; as whole words where it is ASCII and that is asked."""
    pattern = re.escape(needle)
    if whole and needle.isascii():
        pattern = rf"\b{pattern}\b"
    return len(re.findall(pattern, text, re.IGNORECASE))


# ---- the kinds -------------------------------------------------------------------------------------------------------


def _paragraphs(text: str, values: Values) -> bool:
    """Separated by ***. None of them empty, but for what stands before a first or after a last separator."""
    parts = [part.strip() for part in text.split("***")]
    if parts and not parts[0]:
        parts = parts[1:]
    if parts and not parts[-1]:
        parts = parts[:-1]
    return all(parts) and len(parts) == values["num_paragraphs"]


def _first_word(text: str, values: Values) -> bool:
    """Paragraphs are separated by blank lines here."""
    parts = [part.strip() for part in re.split(r"\n\n", text) if part.strip()]
    place = values["nth_paragraph"]
    if len(parts) != values["num_paragraphs"] or not 1 <= place <= len(parts):
        return False
    wanted, part = str(values["first_word"]).lower(), parts[place - 1].lstrip("\"'“‘「『*# ").lower()
    if _han(wanted):
        return part.startswith(wanted)
    word = re.match(r"[^\s.,?!'\"，。！？、：；:;*]+", part)
    return word is not None and word[0] == wanted


def _postscript(text: str, values: Values) -> bool:
    marker = str(values["postscript_marker"]).lower()
    letters = [letter for letter in marker if letter.isalpha()]
    if set(letters) <= {"p", "s"}:  # P.S., P.P.S: with or without spaces, and the last stop
        pattern = r"\.\s?".join(letters)
    else:
        pattern = re.escape(marker)
    return re.search(rf"(?:^|\s){pattern}", text.lower(), re.MULTILINE) is not None


def _bullets(text: str, values: Values) -> bool:
    """Lines that begin with a single asterisk or a hyphen."""
    found = re.findall(r"^[ \t]*(?:\*[^*\n]|-).*$", text, re.MULTILINE)
    return len(found) == int(values["num_bullets"])


def _highlights(text: str, values: Values) -> bool:
    """*so*, or **so**; nothing over more than a line."""
    double = re.findall(r"\*\*[^\n*]+\*\*", text)
    single = re.findall(r"\*[^\n*]+\*", re.sub(r"\*\*[^\n*]+\*\*", "", text))
    return sum(bool(one.strip("* ")) for one in [*double, *single]) >= int(values["num_highlights"])


def _sections(text: str, values: Values) -> bool:
    """A word and a number each: SECTION 1."""
    found = re.findall(rf"\s?{re.escape(str(values['section_spliter']))}\s?\d+\s?", text)
    return len(found) >= int(values["num_sections"])


def _json(text: str, values: Values) -> bool:
    text = text.strip()
    for fence in ("```json", "```JSON", "```Json", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```"))
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str, values: Values) -> bool:
    found = re.findall(r"<<([^\n<>]+)>>", text) + (re.findall(r"《([^\n《》]+)》", text) if _han(text) else [])
    return any(one.strip() for one in found)


def _two_responses(text: str, values: Values) -> bool:
    """Two different ones, with six asterisks between them."""
    parts = [part.strip() for part in text.split("******")]
    inner = [part for place, part in enumerate(parts) if part or 0 < place < len(parts) - 1]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def _quotation(text: str, values: Values) -> bool:
    text = text.strip()
    pairs = [('"', '"'), *(_QUOTES if _han(text) else ())]
    return len(text) > 1 and any(text.startswith(left) and text.endswith(right) for left, right in pairs)


def _capital_words(text: str, values: Values) -> bool:
    count = sum(word.isupper() for word in re.findall(r"\w+(?:['’\-]\w+)*", text))
    return _holds(count, values["capital_relation"], values["capital_frequency"])


def _is_language(text: str, language: str) -> bool:
    """A text without letters, of which no language can be told, counts as followed: so does IFEval."""
    from fledge.corpus.judging.language import scores

    if not any(character.isalpha() for character in text):
        return True
    found = scores(text)
    return bool(found) and max(found, key=lambda name: found[name]) == language.split("-")[0]


def _english(text: str) -> bool:
    """In capitals the model that tells languages apart is lost."""
    return _is_language(text.lower(), "en")


_KINDS: dict[str, _Kind] = {
    "keywords:existence": _Kind(
        lambda text, values: all(_found(word, text) for word in values["keywords"]), ("keywords",)
    ),
    "keywords:frequency": _Kind(
        lambda text, values: _holds(_found(values["keyword"], text), values["relation"], values["frequency"]),
        ("keyword", "relation", "frequency"),
    ),
    "keywords:forbidden_words": _Kind(
        lambda text, values: not any(_found(word, text, whole=True) for word in values["forbidden_words"]),
        ("forbidden_words",),
    ),
    "keywords:letter_frequency": _Kind(
        lambda text, values: _holds(
            text.lower().count(str(values["letter"]).lower()), values["let_relation"], values["let_frequency"]
        ),
        ("letter", "let_relation", "let_frequency"),
    ),
    "language:response_language": _Kind(lambda text, values: _is_language(text, values["language"]), ("language",)),
    "length_constraints:number_sentences": _Kind(
        lambda text, values: _holds(sentences(text), values["relation"], values["num_sentences"]),
        ("relation", "num_sentences"),
    ),
    "length_constraints:number_paragraphs": _Kind(_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": _Kind(
        lambda text, values: _holds(words(text), values["relation"], values["num_words"]), ("relation", "num_words")
    ),
    "length_constraints:nth_paragraph_first_word": _Kind(
        _first_word, ("num_paragraphs", "nth_paragraph", "first_word")
    ),
    "detectable_content:number_placeholders": _Kind(
        lambda text, values: len(re.findall(r"\[[^\[\]\n]*\]", text)) >= int(values["num_placeholders"]),
        ("num_placeholders",),
    ),
    "detectable_content:postscript": _Kind(_postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": _Kind(_bullets, ("num_bullets",)),
    "detectable_format:constrained_response": _Kind(
        lambda text, values: any(option in text for option in values.get("options") or _ANSWERS)
    ),
    "detectable_format:number_highlighted_sections": _Kind(_highlights, ("num_highlights",)),
    "detectable_format:multiple_sections": _Kind(_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": _Kind(_json),
    "detectable_format:title": _Kind(_title),
    "combination:two_responses": _Kind(_two_responses),
    "combination:repeat_prompt": _Kind(
        lambda text, values: text.strip().lower().startswith(str(values["prompt_to_repeat"]).strip().lower()),
        ("prompt_to_repeat",),
    ),
    "startend:end_checker": _Kind(
        lambda text, values: text.strip().strip('"').lower().endswith(str(values["end_phrase"]).strip().lower()),
        ("end_phrase",),
    ),
    "startend:quotation": _Kind(_quotation),
    "change_case:capital_word_frequency": _Kind(_capital_words, ("capital_relation", "capital_frequency")),
    "change_case:english_capital": _Kind(lambda text, values: text.isupper() and _english(text)),
    "change_case:english_lowercase": _Kind(lambda text, values: text.islower() and _english(text)),
    "punctuation:no_comma": _Kind(lambda text, values: "," not in text and "，" not in text),
}
