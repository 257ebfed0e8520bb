"""Answers to mathematics questions: taken out of a reply, brought to a normal form, compared (SPEC J.9).

Nothing is evaluated: numbers are read by a small grammar into exact fractions, and what the grammar does not know
is compared as normalised text. So hostile replies cost no more than their length.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

RELATIVE = Fraction(1, 10_000)
LONGEST = 400  # characters of an answer that are looked at; longer ones are text, never numbers

_WIDE = str.maketrans(
    {ord("０") + i: ord("0") + i for i in range(10)}
    | {ord("．"): ".", ord("－"): "-", ord("−"): "-", ord("–"): "-", ord("％"): "%", ord("／"): "/", ord("＝"): "="}
)
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_RUN = re.compile(r"(?:(?<![0-9A-Za-z_).\]])[-+])?(?:\d[\d,]*(?:\.\d+)?|\.\d+)", re.ASCII)
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_LEADS = re.compile(r"####|(?:final\s+)?answer\s*(?:is|:)|答案\s*(?:是|为|：|:)", re.IGNORECASE)


def plain_digits(text: str) -> str:
    """Full-width digits, points, minus and percent signs as ASCII. Full-width commas stay: they separate clauses."""
    return text.translate(_WIDE)


def numbers(text: str) -> list[Fraction]:
    """All numbers of a text in order. `1,000` is one number; a minus counts only where it is not a subtraction."""
    return [Fraction(found.replace(",", "")) for found in _number_texts(text)]


def _number_texts(text: str) -> list[str]:
    found: list[str] = []
    for match in _RUN.finditer(plain_digits(text)):
        run = match.group().rstrip(",")
        found += [run] if "," not in run or _GROUPED.fullmatch(run) else run.split(",")
    return [number for number in found if number and len(number) <= LONGEST]


def same_number(one: Fraction, other: Fraction) -> bool:
    """Whole numbers must be equal; where one is a fraction, to a relative 1e-4."""
    if one == other:
        return True
    if one.denominator == 1 and other.denominator == 1:
        return False
    return abs(one - other) <= RELATIVE * max(abs(one), abs(other))


def extract_answer(reply: str) -> str:
    """The part of a reply that is its answer: the last `\\boxed{}`, else what follows `####` or "the answer is", else
    the last number. Empty where there is none."""
    boxed = last_boxed(reply)
    if boxed is not None:
        return boxed.strip()
    leads = list(_LEADS.finditer(reply))
    if leads:
        tail = reply[leads[-1].end() :].strip().lstrip(":：").strip()
        line = tail.split("\n", 1)[0].strip()
        return re.split(r"(?<=\S)(?:[.;!](?:\s|$)|[。；！])", line, maxsplit=1)[0].strip()
    found = _number_texts(reply)
    return found[-1] if found else ""


def last_boxed(text: str) -> str | None:
    """Content of the last `\\boxed{...}` (or `\\fbox`) whose braces match."""
    for match in reversed(list(re.finditer(r"\\f?boxed?\s*(?=\{)", text))[-8:]):
        depth = 0
        for place in range(match.end(), len(text)):
            if text[place - 1] == "\\":
                continue
            if text[place] == "{":
                depth += 1
            elif text[place] == "}":
                depth -= 1
                if depth == 0:
                    return text[match.end() + 1 : place]
    return None


@dataclass(frozen=True)
class Value:
    """A normal form: exactly one of `number`, `parts` (with its kind of bracket) or `text` is used."""

    number: Fraction | None = None
    parts: tuple[Value, ...] | None = None
    bracket: str = ""
    text: str = ""


def normalise(text: str) -> str:
    """Without spelling that means nothing: LaTeX spacing, `$`, `\\text{}`, `\\left`, degree signs, final stops."""
    text = plain_digits(unicodedata.normalize("NFC", text)).strip()
    text = re.sub(r"\\\$|[$￥¥]", "", text.replace("（", "(").replace("）", ")"))
    text = re.sub(r"\\(?:left|right|displaystyle|,|;|:|!|quad|qquad)(?![A-Za-z])", "", text)
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\(?:dfrac|tfrac)", r"\\frac", text).replace("\\%", "%").replace("^\\circ", "").replace("°", "")
    text = text.replace("\\{", "{{").replace("\\}", "}}").replace("\\cdot", "\\times").replace("~", " ")
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".。").strip()


def parse_value(text: str) -> Value:
    """Normal form of an answer, without evaluating it."""
    return _parse(normalise(text[: LONGEST + 1])) if len(text) <= LONGEST else Value(text=normalise(text))


def _parse(text: str) -> Value:
    number = _parse_number(text)
    if number is not None:
        return Value(number=number)
    if len(text) >= 2:
        inner, bracket = text[1:-1], text[0] + text[-1]
        if text.startswith("{{") and text.endswith("}}"):
            inner, bracket = text[2:-2], "{}"
        if bracket in {"()", "[]", "(]", "[)", "{}"}:
            pieces = _split(inner)
            if pieces is not None and (len(pieces) > 1 or bracket == "{}"):
                return Value(parts=tuple(_parse(piece.strip()) for piece in pieces), bracket=bracket)
            if pieces is not None and bracket == "()":
                return _parse(inner.strip())
    sides = text.split("=")
    if len(sides) == 2 and re.fullmatch(r"\s*[A-Za-z](?:_?\w)?\s*", sides[0]):
        return _parse(sides[1].strip())
    pieces = _split(text)
    if pieces is not None and len(pieces) > 1:
        return Value(parts=tuple(_parse(piece.strip()) for piece in pieces), bracket="")
    return Value(text=re.sub(r"\s+", "", text).casefold())


def _split(text: str) -> list[str] | None:
    """Parts at commas outside brackets; None if the brackets do not match."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif letter in ",，" and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]] if depth == 0 else None


_UNIT = r"(?:[A-Za-z°µΩ一-鿿][A-Za-z°µΩ一-鿿.²³]*(?:\s*/\s*[A-Za-z一-鿿]+)?(?:\^\{?[23]\}?)?)"
_PLAIN = re.compile(
    rf"(?P<value>{_NUMBER})(?:[eE](?P<e>[-+]?\d{{1,2}}))?(?:\s*\\times\s*10\^\{{?(?P<ten>-?\d{{1,2}})\}}?)?"
)
_FRACTION = re.compile(
    rf"(?:(?P<whole>\d+)\s*)?\\frac\s*\{{\s*(?P<top>-?(?:{_NUMBER}))\s*\}}\s*\{{\s*(?P<low>-?(?:{_NUMBER}))\s*\}}"
)
_SLASH = re.compile(rf"(?:(?P<whole>\d+)\s+)?(?P<top>{_NUMBER})\s*/\s*(?P<low>-?(?:{_NUMBER}))")


def _parse_number(text: str) -> Fraction | None:
    """Integers, decimals, `a/b`, `\\frac{a}{b}`, mixed numbers, powers of ten; with a sign, percent sign or unit."""
    text = text.strip()
    sign = 1
    while text[:1] in {"-", "+"}:
        sign, text = (-sign if text[0] == "-" else sign), text[1:].strip()
    if text.startswith("{") and text.endswith("}") and text.count("{") == 1:
        text = text[1:-1].strip()
    for pattern in (_FRACTION, _SLASH, _PLAIN):
        match = pattern.match(text)
        if match is None:
            continue
        rest = text[match.end() :].strip()
        if rest not in {"", "%"} and not re.fullmatch(rf"{_UNIT}(?:\s+{_UNIT}){{0,3}}", rest):
            continue
        value = _fraction_of(match)
        if value is not None:
            return sign * value
    return None


def _fraction_of(match: re.Match[str]) -> Fraction | None:
    parts = match.groupdict()
    if "value" in parts:
        value = Fraction(parts["value"].replace(",", ""))
        for power in (parts["e"], parts["ten"]):
            if power:
                value *= Fraction(10) ** int(power)
        return value
    low = Fraction(parts["low"].replace(",", ""))
    if low == 0:
        return None
    return Fraction(parts["whole"] or 0) + Fraction(parts["top"].replace(",", "")) / low


def same_value(one: Value, other: Value) -> bool:
    """Numbers by `same_number`; tuples and intervals part by part in order; sets in any order."""
    if one.number is not None or other.number is not None:
        return one.number is not None and other.number is not None and same_number(one.number, other.number)
    if one.parts is not None or other.parts is not None:
        if one.parts is None or other.parts is None or len(one.parts) != len(other.parts):
            return False
        loose = "" in {one.bracket, other.bracket}
        if not loose and one.bracket != other.bracket:
            return False
        if "{}" in {one.bracket, other.bracket}:
            return _same_set(one.parts, other.parts)
        return all(map(same_value, one.parts, other.parts))
    return one.text != "" and one.text == other.text


def _same_set(ones: tuple[Value, ...], others: tuple[Value, ...]) -> bool:
    left = list(others)
    for value in ones:
        place = next((i for i, candidate in enumerate(left) if same_value(value, candidate)), None)
        if place is None:
            return False
        del left[place]
    return True


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same: `1/2`, `0.5`, `\\frac12` do; `(1,2)` and `(2,1)` do not. Empty never does."""
    if not one.strip() or not other.strip():
        return False
    return same_value(parse_value(one), parse_value(other))


def check_answer(gold: str, reply: str) -> tuple[bool, str]:
    """Take the answer out of a reply and compare it with `gold` (of GSM8K's whole solution its `####` part)."""
    gold = gold.rsplit("####", 1)[-1].strip()
    answer = extract_answer(reply)
    if not answer:
        return False, "no answer found"
    if same_answer(answer, gold):
        return True, f"answer {answer[:80]!r}"
    inside = numbers(answer)
    gold_value = parse_value(gold)
    if len(inside) == 1 and parse_value(answer).number is None and gold_value.number is not None:
        # "approximately 5 apples in total": prose around one single number.
        return same_number(inside[0], gold_value.number), f"answer {answer[:80]!r}, expected {gold[:80]!r}"
    return False, f"answer {answer[:80]!r}, expected {gold[:80]!r}"
