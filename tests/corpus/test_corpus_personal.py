"""Personal data: recall on planted cases, precision on numbers that look like it, and real clean text."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from corpus_pages import CHINESE, ENGLISH

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.corpus.judging.personal import PersonalConfig, find_personal, mask, public, treat, valid_card

PLANTED = {
    "email": [
        "Write to mira.talen+news@mail.example.org today.", "联系人邮箱：li.ming@163.com。",
        "（wang_xiao@sina.com.cn）",
        "JOHN-SMITH@BIG-CORP.CO.UK", "mail jonas [at] lantern.net for a copy", "ask anna (at) mill (dot) org",
        "<a.b@c.io>", "邮箱zhang＠qq.com谢谢",
    ],
    "phone": [
        "手机13812345678，", "电话 138-1234-5678", "+86 139 1234 5678", "(010) 62345678", "请拨021-6234 5678咨询",
        "Call (555) 234-5678 now", "555-234-5678", "1-415-555-2671", "+44 20 7946 0018", "+1 415 555 2671",
        "+33 1 23 45 67 89", "tel: 020 7946 0018", "Phone 0161 496 0000.", "电话：62345678", "传真（0571）87654321",
        "mobile number 07700 900123", "0049 30 901820",
    ],
    "ip": [
        "from 93.184.216.34 at noon", "登录IP：114.114.114.114。", "http://151.101.1.69/x", "[185.199.108.153]:443",
        "2606:2800:220:1:248:1893:25c8:1946", "host 2001:4860:4860::8888 answered", "240e:3b7::1",
    ],
    "identity": [
        "身份证11010519491231002X，", "id 11010519491231002x.", "公民身份号码：31010419900307123X",
    ],
    "card": [
        "卡号6222021234567894。", "4111 1111 1111 1111", "5500-0000-0000-0004", "3782 822463 10005", "371449635398431",
        "6011000990139424", "3530111333300000", "6200000000000005",
    ],
}  # fmt: skip
NEGATIVE = [
    # versions, chapters, networks
    "version 93.184.216.34", "v8.120.3.40", "Chrome/120.0.6099.109", "Firefox/115.0.31.42", "section 4.12.3.1",
    "1.2.3.4",
    "192.168.1.10", "10.0.0.255", "127.0.0.1", "172.16.254.1", "255.255.255.0", "224.0.0.251", "203.0.113.9",
    "fe80::1ff:fe23:4567:890a", "2001:db8::1", "std::vector<int>::iterator a::b", "12:30:45", "93.184.216.0/24",
    "第3.114.2.58章",
    # books, orders, papers, money, times, sums
    "ISBN 978-7-111-12345-7", "ISBN 9787111123453", "ISSN 0317-8471", "doi:10.1145/3292500.3330701", "arXiv:2406.17557",
    "订单号 6222021234567894", "order no. 4111111111111111", "tracking number 555-234-5678", "QQ：13812345678",
    "2024-03-01 12:30:45", "20240301123045", "1709251845123", "1,234,567,890", "3.14159265358979323846",
    "12345678 + 87654321 = 99999999", "0.5551234567", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "1234 5678 9012 3456",
    "0000 0000 0000 0000", "110105194912310021", "11010519490231002X", "100-200-3000",
    "2147483647", "6.02214076e23", "pages 234-567", "1939-1945", "scores 21-19 18-21 21-17", "US 7,654,321 B2",
    # what has an at sign
    "x @ self.weight", "@decorator", "@property\ndef f(self)", "icon@2x.png", "git@github.com:a/b.git", "3 @ 4.50",
    "meet @ noon.", "user@host", "dbus@system.service", ENGLISH, CHINESE,
]  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_cases_are_found_as_their_kind(kind: str) -> None:
    for text in PLANTED[kind]:
        for around in (text, f"{ENGLISH} {text}", f"{text}\n{CHINESE}"):
            assert [item.kind for item in find_personal(around)] == [kind], around[:200]


@pytest.mark.parametrize("text", NEGATIVE)
def test_what_only_looks_like_it_is_let_be(text: str) -> None:
    assert find_personal(text) == []
    assert find_personal(f"{ENGLISH}\n{text}") == []


def test_numbers_made_at_random_are_seldom_cards() -> None:
    """One of ten passes Luhn's check; with issuers' ranges, fewer than one of thirty of sixteen digits."""
    rng = random.Random(0)
    numbers = [str(rng.randint(10**15, 10**16 - 1)) for _ in range(3000)]
    assert 20 < sum(map(valid_card, numbers)) < 100


def test_masked_text_holds_nothing_more() -> None:
    text = " ; ".join(case for cases in PLANTED.values() for case in cases)
    found = find_personal(text)
    hidden = mask(text, found)
    assert find_personal(hidden) == []
    assert Counter(item.kind for item in found) == {kind: len(cases) for kind, cases in PLANTED.items()}
    assert hidden.count("[email]") == len(PLANTED["email"])


def test_each_kind_has_its_action() -> None:
    text = "Mail a.b@c.org or call +44 20 7946 0018 from 93.184.216.34."
    default = treat(text, PersonalConfig())
    assert (default.drop, default.dropping) == ("email", 2)
    assert default.found == {"email": 1, "phone": 1, "ip": 1}
    assert "a.b" not in default.excerpt
    assert default.text == text

    config = build(PersonalConfig, {"action": "keep", "actions": {"email": "mask", "phone": "drop"}, "most": 1})
    some = treat(text, config)
    assert (some.drop, some.masked) == ("", {"email": 1, "phone": 1})
    assert some.text == "Mail [email] or call [phone] from 93.184.216.34."

    assert treat(text, PersonalConfig(), code=True).masked == {"email": 1, "ip": 1, "phone": 1}
    assert treat("only 93.184.216.34 here", PersonalConfig()).text == "only [ip] here"
    assert treat(ENGLISH, PersonalConfig()).text is ENGLISH
    with pytest.raises(ConfigError, match="emails"):
        build(PersonalConfig, {"actions": {"emails": "mask"}})


def test_public_addresses() -> None:
    assert [public(a) for a in ("8.8.8.8", "10.1.1.1", "300.1.1.1", "2001:4860::1", "::1", "169.254.1.1")] == [
        True, False, False, True, False, False,
    ]  # fmt: skip


def test_clean_real_text_has_none(real_data: Path) -> None:
    """Encyclopedia articles and news sentences: what is found there is wrong, or truly an address of someone."""
    import gzip

    text = gzip.decompress((real_data / "text/wikitext2/valid.txt.gz").read_bytes()).decode()
    articles = text.split("\n = ")
    assert sum(bool(find_personal(article)) for article in articles) <= 0.005 * len(articles)
