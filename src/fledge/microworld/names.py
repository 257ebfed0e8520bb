"""Invented names, built of syllables that have one Latin and one Chinese spelling, so that a name reads in both."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fledge.core.errors import DataError

SYLLABLES: list[tuple[str, str]] = [
    ("ba", "巴"), ("be", "贝"), ("bo", "博"), ("da", "达"), ("de", "德"), ("di", "迪"), ("do", "多"), ("fa", "法"),
    ("fi", "菲"), ("ga", "加"), ("go", "戈"), ("ha", "哈"), ("he", "赫"), ("ka", "卡"), ("ke", "克"), ("ki", "基"),
    ("ko", "科"), ("la", "拉"), ("le", "勒"), ("li", "丽"), ("lo", "洛"), ("lu", "卢"), ("ma", "玛"), ("me", "梅"),
    ("mi", "米"), ("mo", "莫"), ("na", "娜"), ("ne", "内"), ("ni", "尼"), ("no", "诺"), ("pa", "帕"), ("pe", "佩"),
    ("pi", "皮"), ("po", "波"), ("ra", "兰"), ("re", "雷"), ("ri", "里"), ("ro", "罗"), ("ru", "鲁"), ("sa", "萨"),
    ("se", "塞"), ("si", "希"), ("so", "索"), ("su", "苏"), ("ta", "塔"), ("te", "特"), ("ti", "蒂"), ("to", "托"),
    ("va", "瓦"), ("ve", "维"), ("vi", "薇"), ("wa", "沃"), ("ya", "雅"), ("yo", "约"), ("za", "扎"), ("ze", "泽"),
    ("zo", "佐"),
]  # fmt: skip
ENDINGS: list[tuple[str, str]] = [
    ("lin", "林"), ("ven", "文"), ("san", "桑"), ("tan", "坦"), ("ron", "伦"), ("kel", "凯"), ("mar", "马"),
    ("nor", "诺尔"), ("bel", "贝尔"), ("dis", "迪斯"), ("gas", "加斯"), ("fen", "芬"), ("der", "德尔"),
    ("mund", "蒙德"),
]  # fmt: skip
TOWN_ENDINGS: list[tuple[str, str]] = [("dale", "谷"), ("port", "港"), ("ton", "镇"), ("burg", "堡"), ("field", "原")]


@dataclass(frozen=True)
class Name:
    """A name in both spellings. ``root`` holds the parts that no other name of the pool shares."""

    en: str
    zh: str
    roots: tuple[str, ...]

    def of(self, language: str) -> str:
        return self.en if language == "en" else self.zh


class NamePool:
    """Draws names without ever giving a first name, family name or town root twice."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.firsts = [(a, b) for a in SYLLABLES for b in SYLLABLES if a[0][0] != b[0][0]]
        self.lasts = [(a, b) for a in SYLLABLES for b in ENDINGS]
        self.towns = [(a, b) for a in SYLLABLES for b in SYLLABLES if a[0][0] != b[0][0]]
        rng.shuffle(self.firsts)
        rng.shuffle(self.lasts)
        rng.shuffle(self.towns)
        self.reserved_lasts: set[str] = set()
        self.used: set[str] = set()

    def _next_first(self) -> tuple[tuple[str, str], tuple[str, str]]:
        while self.firsts:
            pair = self.firsts.pop()
            root = pair[0][0] + pair[1][0]
            if root not in self.used:
                self.used.add(root)
                return pair
        raise DataError("the world has run out of first names: ask for fewer people or fewer tests_per_skill")

    def person(self, own_last: bool = False) -> Name:
        """A person. With `own_last` the family name is kept from everyone who comes later."""
        first = self._next_first()
        while True:
            last = self.lasts[-1] if own_last else self.rng.choice(self.lasts)
            if own_last:
                self.lasts.pop()
            root = last[0][0] + last[1][0]
            if root not in self.reserved_lasts:
                break
        if own_last:
            self.reserved_lasts.add(root)
        first_en = (first[0][0] + first[1][0]).capitalize()
        zh = f"{first[0][1]}{first[1][1]}·{last[0][1]}{last[1][1]}"
        return Name(f"{first_en} {root.capitalize()}", zh, (first_en.lower(),))

    def place(self) -> Name:
        while self.towns:
            pair = self.towns.pop()
            root = pair[0][0] + pair[1][0]
            if root not in self.used:
                self.used.add(root)
                ending = self.rng.choice(TOWN_ENDINGS)
                return Name((root + ending[0]).capitalize(), pair[0][1] + pair[1][1] + ending[1], (root,))
        raise DataError("the world has run out of place names: ask for fewer places or fewer tests_per_skill")
