"""Personal data: e-mail addresses, telephone numbers, Chinese identity numbers (checksum), bank cards (Luhn)."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from fledge.core.config import Config

VERSION = 1
Action = Literal["drop", "mask", "keep"]

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9_][\w.+-]{0,63}[@＠](?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,18}(?![\w-])", re.ASCII
)
_IDENTITY = re.compile(
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![0-9A-Za-z])"
)
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]\d|\d)")
_MOBILE_CN = re.compile(r"(?<![\d.])(?:(?:\+|00)?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d|\.\d)")
_LANDLINE_CN = re.compile(r"(?<![\d-])(?:\(0\d{2,3}\)|0\d{2,3}-)[ ]?[2-9]\d{6,7}(?![\d-])")
_INTERNATIONAL = re.compile(r"(?<![\w+])\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}(?!\d)")
_NORTH_AMERICA = re.compile(r"(?<![\w(-])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[.-])\d{3}[ .-]\d{4}(?![\w-])")
_LONG_NUMBER = re.compile(r"\d[\d ().-]{6,}")  # what all but addresses need
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_NOT_DIGIT = re.compile(r"\D")


class PersonalConfig(Config):
    """What happens to a page with personal data. Source code keeps its authors' lines, masked."""

    action: Action = "drop"
    code_action: Action = "mask"
    most: int = Field(0, ge=0, description="a page with more findings than this is dropped (action drop)")


@dataclass(frozen=True)
class Finding:
    """One piece of personal data: where it stands in the text, and what it is."""

    start: int
    end: int
    kind: str


def find_personal(text: str) -> list[Finding]:
    """All findings in order, none overlapping: what is found by the stricter test wins."""
    found: list[Finding] = []
    taken: list[tuple[int, int]] = []

    def take(start: int, end: int, kind: str) -> None:
        if all(end <= a or start >= b for a, b in taken):
            taken.append((start, end))
            found.append(Finding(start, end, kind))

    if "@" in text or "＠" in text:
        for match in _EMAIL.finditer(text):
            take(match.start(), match.end(), "email")
    if not _LONG_NUMBER.search(text):
        return sorted(found, key=lambda item: item.start)
    for match in _IDENTITY.finditer(text):
        if valid_identity(match.group()):
            take(match.start(), match.end(), "identity")
    for match in _CARD.finditer(text):
        if luhn(match.group()):
            take(match.start(), match.end(), "card")
    for pattern in (_MOBILE_CN, _LANDLINE_CN, _INTERNATIONAL, _NORTH_AMERICA):
        for match in pattern.finditer(text):
            digits = len(_NOT_DIGIT.sub("", match.group()))
            if 8 <= digits <= 15:
                take(match.start(), match.end(), "phone")
    return sorted(found, key=lambda item: item.start)


def mask(text: str, findings: list[Finding]) -> str:
    """The text with each finding replaced by its kind in brackets."""
    for item in reversed(findings):
        text = f"{text[: item.start]}[{item.kind}]{text[item.end :]}"
    return text


def valid_identity(number: str) -> bool:
    """GB 11643: 17 digits and a check character modulo 11, with a date that exists."""
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def luhn(number: str) -> bool:
    """ISO/IEC 7812: the check digit of a card number of 13 to 19 digits (beginning with 2 to 6, not all the same)."""
    digits = [int(character) for character in number if character.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) < 2:
        return False
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
