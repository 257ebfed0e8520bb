"""Personal data: e-mail and public network addresses, telephone numbers, Chinese identity numbers, bank cards.

Each kind is a pattern and a test that strangers fail: checksums (GB 11643, Luhn) and issuers' ranges for numbers, the
registries' private and reserved ranges for addresses, words before it that make a number an order's or a book's.
Names, streets and birthdays are not looked for.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import Field

from fledge.core.config import Config

VERSION = 2
Action = Literal["drop", "mask", "keep"]
Kind = Literal["email", "phone", "ip", "identity", "card"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_AT = r"(?:[@＠]|\s?[\[({<]\s?(?:at|AT|@)\s?[\])}>]\s?)"  # also "name [at] site.org" and "name (at) site (dot) org"
_DOT = r"(?:\.|\s?[\[({<]\s?(?:dot|DOT)\s?[\])}>]\s?)"
_EMAIL = re.compile(
    rf"(?<![\w.+-])([A-Za-z0-9_][\w.+-]{{0,63}}){_AT}(?:[A-Za-z0-9-]{{1,63}}{_DOT}){{1,4}}([A-Za-z]{{2,18}})(?![\w-])",
    re.ASCII,
)
_MAY_BE_EMAIL = re.compile(r"[@＠]|[\[({<] ?(?:at|AT) ?[\])}>]")
_NO_DOMAIN = frozenset(
    {"png", "jpg", "jpeg", "gif", "webp", "svg", "css", "js", "ts", "py", "java", "cpp", "html", "json", "xml",
     "service", "target"}
)  # fmt: skip
_NO_PERSON = frozenset({"git"})  # git@host:path is how a repository is addressed

_IDENTITY = re.compile(
    r"(?<![0-9A-Za-z])[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![0-9A-Za-z])"
)
# In one piece, or in fours as it stands on the card (American Express: 4-6-5). Not \d: a list of numbers is no card.
_CARD = re.compile(
    r"(?<![\d.-])(?<!\d )(?:\d{13,19}|\d{4}(?:([ -])\d{4})(?:\1\d{4}){1,3}(?:\1?\d{1,3})?|3\d{3}[ -]\d{6}[ -]\d{5})"
    r"(?![.-]?\d| \d)"
)
# ISO/IEC 7812: Visa, Mastercard, American Express and Diners, JCB, Discover, UnionPay, Mir, with their lengths.
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}(?:\d{3})?)?|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}|220[0-4]\d{12}"
)
_MOBILE_CN = re.compile(r"(?<![\d.-])(?:(?:\+|00)?86[ -]?)?1[3-9]\d(?:\d{8}|([ -])\d{4}\1\d{4})(?!-?\d|\.\d)")
_LANDLINE_CN = re.compile(r"(?<![\d-])(?:[(（]0\d{2,3}[)）] ?|0\d{2,3}-) ?[2-9]\d{2,3}[ -]?\d{4}(?![\d-])")
_INTERNATIONAL = re.compile(
    r"(?<![\w+])(?:\+|00(?=[1-9]\d{0,2}[ .-]))[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?"
    r"\d{1,4}(?:[ .-]?\d{2,4}){1,5}(?!\d)"
)
_NORTH_AMERICA = re.compile(
    r"(?<![\w(-])(?<!\d[. ])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}([.-]))[2-9]\d{2}[ .-]\d{4}(?![\w-]|\.\d)"
)
_LABELLED = re.compile(  # any number of a fitting length behind a word that says what it is
    r"(?:\b(?:tel|phone|telephone|mobile|cell|fax|call|whatsapp)\b|电话|手机|手机号|热线|传真|致电|座机)"
    r"[^\w\n+(（]{0,4}(?:number|no|at|us|me|is|号码|号|是|为)?[^\w\n+(（]{0,3}"
    r"([+(（]?\d[\d ()（）.-]{6,18}\d)(?![\d-])",
    re.IGNORECASE,
)
_PHONES = ((_MOBILE_CN, 0), (_LANDLINE_CN, 0), (_INTERNATIONAL, 0), (_NORTH_AMERICA, 0), (_LABELLED, 1))
_LONG_NUMBER = re.compile(r"\d[\d ()（）.-]{6,}")  # what all but addresses need
# Words right before a number that make it another thing's.
_OTHER_NUMBER = re.compile(
    r"(?:isbn|issn|doi|order|invoice|ticket|tracking|serial|part|item|sku|ref|reference|model|patent|case|pmid|arxiv|"
    r"订单|单号|编号|序列号|型号|版本|案号|流水号|发票|书号|QQ)[^\w\n]{0,3}(?:no|number|id|号码|号)?[^\w\n]{0,4}$",
    re.IGNORECASE,
)
_BEFORE = 24  # characters that are looked at for such a word

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.:-])(?<!\w/)(?:{_OCTET}\.){{3}}{_OCTET}(?![\w-]|\.\d|/\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:]|/\d)", re.ASCII)
_MAY_BE_IP = re.compile(r"\d\.\d{1,3}\.\d|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:")
_VERSION = re.compile(
    r"(?:\bv|version|ver|release|build|firmware|update|section|clause|版本|版|第|章|节)[ .:：#]{0,3}$", re.IGNORECASE
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_NOT_DIGIT = re.compile(r"\D")


def _default_actions() -> dict[Kind, Action]:
    return {"ip": "mask"}


class PersonalConfig(Config):
    """What happens to a page with personal data. Source code keeps its authors' lines, masked."""

    action: Action = Field("drop", description="for kinds that have no action of their own")
    actions: dict[Kind, Action] = Field(
        default_factory=_default_actions,
        description="by kind: email, phone, ip, identity, card. Public addresses stand in logs and guides that are "
        "worth keeping, so they are masked (FineWeb masks them too)",
    )
    code_action: Action = Field("mask", description="for all kinds, in source code")
    most: int = Field(0, ge=0, description="a page with more findings than this of kinds to drop is dropped")

    def action_of(self, kind: Kind, code: bool = False) -> Action:
        return self.code_action if code else self.actions.get(kind, self.action)


@dataclass(frozen=True)
class Finding:
    """One piece of personal data: where it stands in the text, and what it is."""

    start: int
    end: int
    kind: Kind


@dataclass(frozen=True)
class Treated:
    """A text as the configuration wants it. ``found`` and ``masked`` count by kind; ``drop`` is the first kind for
    which the page is to be dropped, ``dropping`` how many findings of such kinds there are."""

    text: str
    found: dict[Kind, int] = field(default_factory=dict)
    masked: dict[Kind, int] = field(default_factory=dict)
    drop: str = ""
    dropping: int = 0
    excerpt: str = ""  # of a page to drop, masked


def treat(text: str, config: PersonalConfig, code: bool = False) -> Treated:
    """Find personal data, and mask what is to be masked; or say that the page is to be dropped.

    On a page with fewer findings to drop than ``most`` allows, these are masked too: nothing found stays readable
    unless its action is ``keep``.
    """
    actions = {kind: config.action_of(kind, code) for kind in KINDS}
    findings = find_personal(text) if set(actions.values()) != {"keep"} else []
    if not findings:
        return Treated(text)
    found = dict(sorted(Counter(item.kind for item in findings).items()))
    dropping = [item for item in findings if actions[item.kind] == "drop"]
    if len(dropping) > config.most:
        return Treated(text, found, {}, dropping[0].kind, len(dropping), mask(text, findings)[:160])
    hidden = [item for item in findings if actions[item.kind] != "keep"]
    masked = dict(sorted(Counter(item.kind for item in hidden).items()))
    return Treated(mask(text, hidden), found, masked)


def find_personal(text: str) -> list[Finding]:
    """All findings in order, none overlapping: what is found by the stricter test wins."""
    found: list[Finding] = []

    def take(start: int, end: int, kind: Kind) -> None:
        if all(end <= item.start or start >= item.end for item in found):
            found.append(Finding(start, end, kind))

    if _MAY_BE_EMAIL.search(text):
        for match in _EMAIL.finditer(text):
            if match[2].lower() not in _NO_DOMAIN and match[1].lower() not in _NO_PERSON:
                take(match.start(), match.end(), "email")
    if _MAY_BE_IP.search(text):
        for start, end in _addresses(text):
            take(start, end, "ip")
    if _LONG_NUMBER.search(text):
        for match in _IDENTITY.finditer(text):
            if valid_identity(match.group()):
                take(match.start(), match.end(), "identity")
        for match in _CARD.finditer(text):
            if valid_card(match.group()) and not _of_another_thing(text, match.start()):
                take(match.start(), match.end(), "card")
        for pattern, group in _PHONES:
            for match in pattern.finditer(text):
                start, end = match.span(group)
                digits = len(_NOT_DIGIT.sub("", text[start:end]))
                if 7 + (group == 0) <= digits <= 15 and not _of_another_thing(text, start):
                    take(start, end, "phone")
    return sorted(found, key=lambda item: item.start)


def _of_another_thing(text: str, start: int) -> bool:
    return bool(_OTHER_NUMBER.search(text[max(0, start - _BEFORE) : start]))


def _addresses(text: str) -> list[tuple[int, int]]:
    """Where public network addresses stand.

    Four small numbers with dots between them are rather a version or a chapter: an address needs a number above 31,
    which all but one public address of four thousand has.
    """
    found = []
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            if pattern is _IPV4 and max(map(int, match.group().split("."))) <= 31:
                continue
            if public(match.group()) and not _VERSION.search(text[max(0, match.start() - 12) : match.start()]):
                found.append(match.span())
    return found


def public(address: str) -> bool:
    """Whether an address is one that a stranger could have: not private, reserved, of documentation or multicast."""
    try:
        value = ipaddress.ip_address(address)
    except ValueError:
        return False
    return value.is_global and not value.is_multicast


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


def valid_card(number: str) -> bool:
    """An issuer's range and length, and Luhn's check."""
    digits = _NOT_DIGIT.sub("", number)
    return bool(_ISSUERS.fullmatch(digits)) and luhn(digits)


def luhn(number: str) -> bool:
    """ISO/IEC 7812: the check digit of a card number of 13 to 19 digits (beginning with 2 to 6, not all the same)."""
    digits = [int(character) for character in number if character.isdigit()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) < 2:
        return False
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
