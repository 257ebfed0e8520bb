"""Pages with one kind of personal data each, in the ways people write it. ``traces`` holds every string that was planted."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

from collections.abc import Sequence

from fledge.microworld import defects
from fledge.microworld.crawl.setting import Setting
from fledge.microworld.page import Page


def _page(s: Setting, strings: Sequence[str], english: Sequence[str], chinese: Sequence[str]) -> Page:
    """Each string in a sentence of its own ({x}; {n} is somebody), at random places of an ordinary text."""
    told = []
    for string in strings:
        name = s.rng.choice(s.world.extras_train).of(s.language)
        told.append(s.pick(english, chinese).format(x=string, n=name))
    return s.page(s.scattered(told, 7, 14), traces=dict.fromkeys(strings, 0))


def _some(s: Setting) -> range:
    return range(s.rng.randint(1, 4))


_DOMAINS = ("lantern-post", "millmail", "riverside", "tidewater", "xiaozhen", "oldbridge")


def email(s: Setting) -> Page:
    """Addresses: dotted, tagged, in capitals, with digits or a hyphen."""
    strings = []
    for _ in _some(s):
        first, last = s.rng.choice(s.world.extras_train).en.lower().split()
        user = s.rng.choice(
            (
                f"{first}.{last}",
                f"{first[0]}{last}{s.rng.randint(1, 99)}",
                f"{first}_{last}",
                f"{first}+news",
                f"{last}-{first}",
            )
        )
        host = f"{s.rng.choice(_DOMAINS)}.{s.rng.choice(('com', 'net', 'org', 'cn', 'com.cn', 'co.uk', 'info'))}"
        string = f"{user}@{host}"
        strings.append(string.upper() if s.rng.random() < 0.1 else string)
    return _page(s, strings, ("Write to {n} at {x} with questions.", "{n} ({x}) has more.", "Mail: {x}.", "Send your letters to <{x}>, please."),
                 ("{n}的邮箱是{x}。", "来信请寄{x}，{n}收。", "电子邮件：{x}", "有问题请联系{x}。"))  # fmt: skip


def phone(s: Setting) -> Page:
    """Numbers of three countries, in the usual groupings."""
    r = s.rng
    strings = []
    for _ in _some(s):
        last = f"{r.randint(0, 9999):04}"
        if s.en:
            area, middle = str(r.choice((212, 303, 415, 512, 617, 808))), str(r.randint(220, 989))
            forms = (
                "({a}) {m}-{l}",
                "{a}-{m}-{l}",
                "{a}.{m}.{l}",
                "+1 {a} {m} {l}",
                "+1-{a}-{m}-{l}",
                "+44 20 79{a:.1}{m:.1} {l}",
            )
        else:
            area, middle = f"1{r.choice('35789')}{r.randint(0, 9)}", f"{r.randint(0, 9999):04}"
            forms = ("{a}{m}{l}", "{a} {m} {l}", "{a}-{m}-{l}", "+86 {a}{m}{l}", "010-8{a}{m}", "0571-8{a}{l}")
        strings.append(r.choice(forms).format(a=area, m=middle, l=last))
    return _page(s, strings, ("Call {n}: {x}.", "Phone {x}, ask for {n}.", "Tel. {x}", "You reach {n} under {x} after six."),
                 ("请拨打{x}找{n}。", "联系电话：{x}", "{n}的手机号是{x}。", "电话{x}，晚上六点以后。"))  # fmt: skip


def identity(s: Setting) -> Page:
    """Chinese resident numbers with a right check character."""
    return _page(s, [defects.identity_number(s.rng) for _ in _some(s)],
                 ("Passport check: id {x}.", "{n} gave the identity number {x}.", "ID no. {x} ({n})"),
                 ("身份证号码：{x}。", "{n}的身份证号是{x}。", "证件号{x}，姓名{n}。"))  # fmt: skip


def _card(s: Setting) -> str:
    """Four issuers, 15 to 19 digits, a right check digit (ISO/IEC 7812-1, annex B)."""
    head, length, groups = s.rng.choice(
        (
            ("4", 16, (4, 4, 4, 4)),
            ("5" + s.rng.choice("12345"), 16, (4, 4, 4, 4)),
            ("37", 15, (4, 6, 5)),
            ("62", 19, (6, 13)),
        )
    )
    body = head + "".join(s.rng.choices("0123456789", k=length - len(head) - 1))
    weighted = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(body))]
    number = body + str(-sum(n // 10 + n % 10 for n in weighted) % 10)
    parts, at = [], 0
    for group in groups:
        parts.append(number[at : at + group])
        at += group
    return s.rng.choice(("", " ", "-")).join(parts)


def bank_card(s: Setting) -> Page:
    return _page(s, [_card(s) for _ in _some(s)], ("The card number {x} was used to pay.", "{n} paid with {x}.", "Card: {x}"),
                 ("银行卡号：{x}。", "{n}的卡号是{x}。", "请汇款至{x}，户名{n}。"))  # fmt: skip


def ip_address(s: Setting) -> Page:
    """Public addresses of visitors, of version 4 or 6."""
    r = s.rng
    strings = []
    for _ in _some(s):
        four = f"{r.choice((23, 47, 61, 78, 84, 91, 114, 151, 180, 202, 218))}.{r.randint(2, 250)}.{r.randint(1, 250)}.{r.randint(1, 250)}"
        six = f"2{r.choice(('001:4860', '400:cb00', '408:8207', 'a02:2f0a'))}:" + ":".join(
            f"{r.randint(0x1000, 0xFFFF):x}" for _ in range(6)
        )
        strings.append(four if r.random() < 0.8 else six)
    return _page(s, strings, ("Posted by {n} from {x}.", "The visitor with the address {x} wrote again.", "Logged IP: {x}"),
                 ("{n}发表于{x}。", "来访者IP：{x}", "地址为{x}的用户又来了。"))  # fmt: skip
