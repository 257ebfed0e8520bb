"""Lines that are no part of a page's text: they go, the page stays, unless too much of it went.

After C4 (Raffel et al. 2019, 1910.10683, section 2.2) and RefinedWeb (Penedo et al. 2023, 2306.01116), with what
Chinese pages have in their place. Off unless named: they change the text, and prose without line ends loses all of
it to ``terminal``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.text.tokens import tokens

VERSION = 1
Name = Literal["terminal", "short", "javascript", "policy", "interface", "counter", "long_word"]

_TERMINAL = re.compile(r"[.!?。！？…]['\"”’」』)）]*$")
_POLICY = re.compile(
    r"terms of use|privacy policy|cookie policy|uses? (?:of )?cookies|use of cookies"
    r"|版权所有|隐私政策|使用条款|服务条款|免责声明|ICP备|违法和不良信息举报",
    re.IGNORECASE,
)
_INTERFACE = re.compile(
    r"^(?:sign.?in|log.?in|read more|show more|items? in cart|add to cart|share this|skip to (?:main )?content)\W*$"
    r"|^(?:登录|注册|更多|展开全文?|阅读全文|点击查看|加入购物车|分享到.*|返回顶部|上一[篇页].*|下一[篇页].*)\W*$",
    re.IGNORECASE,
)
_COUNTER = re.compile(
    r"^\W*\d[\d,.]*\s?[kKmM万]?\s?(?:likes?|shares?|comments?|views?|retweets?|次?阅读|点赞|评论|转发|浏览)?\W*$"
)
_LONG = 1_000  # characters of a word


# Whether a stripped line goes.
LINE_RULES: dict[Name, Callable[[str], bool]] = {
    "terminal": lambda line: not _TERMINAL.search(line) or line.endswith("..."),
    "short": lambda line: len(tokens(line)) < 3,
    "javascript": lambda line: "javascript" in line.lower(),
    "policy": lambda line: bool(_POLICY.search(line)),
    "interface": lambda line: bool(_INTERFACE.search(line)),
    "counter": lambda line: bool(_COUNTER.search(line)),
    "long_word": lambda line: any(len(word) > _LONG for word in line.split()),
}


class LinesConfig(Config):
    """Which lines go. C4: terminal, short, javascript, policy, long_word; FineWeb: these without terminal."""

    drop: tuple[Name, ...] = Field((), description="terminal, short, javascript, policy, interface, counter, long_word")
    most: float = Field(
        1.0, ge=0, le=1, description="a page that loses a larger share of its characters leaves (RefinedWeb: .05 of "
        "its words)"
    )  # fmt: skip


def without(text: str, config: LinesConfig) -> tuple[str, float, dict[str, int]]:
    """-> the text without the lines that go, their share of its characters, and how many went by each rule, the first
    that applies. Empty lines stay as they are."""
    kept: list[str] = []
    gone: Counter[str] = Counter()
    characters = 0
    for line in text.split("\n"):
        solid = line.strip()
        name = next((name for name in config.drop if LINE_RULES[name](solid)), None) if solid else None
        if name is None:
            kept.append(line)
        else:
            gone[name] += 1
            characters += len(solid)
    whole = sum(len(line.strip()) for line in text.split("\n"))
    return "\n".join(kept).strip("\n"), characters / whole if whole else 0.0, dict(gone)
