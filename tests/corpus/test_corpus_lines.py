"""Lines that are no part of a page's text: what goes, what stays, and what is left of a page."""

from __future__ import annotations

import pytest
from corpus_pages import CHINESE, ENGLISH

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.corpus.chain import Chain, ChainConfig
from fledge.corpus.judging.line_rules import LINE_RULES, LinesConfig, Name, without
from fledge.corpus.pages import Drop, Found, Page

LINES: dict[Name, tuple[list[str], list[str]]] = {
    "terminal": (
        ["A title", "and so on...", "春天", "a, b;"],
        ["He came.", "He said “yes.”", "他来了。", "真的？”", "Is it (so?)", "wait…"],
    ),
    "short": (["two words", "好的", "!!! ???"], ["three little words", "我们去", "It is 5"]),
    "javascript": (["Please enable JavaScript."], ["Java is an island."]),
    "policy": (
        ["See our Terms of Use", "This site uses cookies", "We make use of cookies.", "Cookie policy", "京ICP备12345号",
         "违法和不良信息举报电话", "版权所有 某某公司", "免责声明"],
        ["Grandmother's cookies were good.", "The policy of the town", "举报的人走了"],
    ),
    "interface": (
        ["Sign in", "LOG-IN »", "Read more...", "Skip to main content", "items in cart", "登录", "展开全文",
         "上一篇：春天", "下一页", "分享到微博", "返回顶部"],
        ["Sign in to the book at the door.", "登录后可以看到全文", "She would like to read more books."],
    ),
    "counter": (
        ["1,204 likes", "3.4k views", "1.2万次阅读", "12 点赞", "42", "(7)"],
        ["12 apples", "1984 was a year", "三次阅读"],
    ),
    "long_word": (["x" * 1001], ["x" * 1000, "x " * 1001]),
}  # fmt: skip


@pytest.mark.parametrize("name", LINE_RULES)
def test_lines_that_go_and_lines_that_stay(name: Name) -> None:
    goes, stays = LINES[name]
    assert [line for line in goes if not LINE_RULES[name](line)] == []
    assert [line for line in stays if LINE_RULES[name](line)] == []


def test_empty_lines_stay_but_at_the_ends() -> None:
    config = build(LinesConfig, {"drop": ["interface"]})
    left, share, gone = without("Sign in\n\n  One.\n\nTwo.  \n Log in \n\nSign in", config)
    assert left == "  One.\n\nTwo.  "
    assert gone == {"interface": 3}
    assert share == pytest.approx(20 / 28)  # white space around a line is not counted
    assert without("Sign in", config) == ("", 1.0, {"interface": 1})
    assert without("", config) == ("", 0.0, {})


def test_lines_that_are_no_part_of_the_text() -> None:
    text = f"{ENGLISH}\nSign in\n\nWe use cookies on this page.\n1,204 likes\nPlease enable JavaScript.\nA title"
    text += "\n版权所有 某某公司\n阅读全文"
    config = build(LinesConfig, {"drop": ["javascript", "policy", "interface", "counter"]})
    left, share, gone = without(text, config)
    assert left == f"{ENGLISH}\n\nA title"
    assert gone == {"interface": 2, "policy": 2, "counter": 1, "javascript": 1}
    assert share == pytest.approx(1 - len(ENGLISH + "A title") / sum(map(len, text.split("\n"))))
    assert without(text, build(LinesConfig, {"drop": ["terminal", "short"]}))[0].startswith(ENGLISH + "\n\nWe use")
    assert without(CHINESE, build(LinesConfig, {"drop": ["terminal", "short"]})) == (CHINESE, 0.0, {})
    assert without(text, LinesConfig()) == (text, 0.0, {})
    with pytest.raises(ConfigError, match="terminal"):
        build(LinesConfig, {"drop": ["terminals"]})


def test_a_page_of_which_too_much_goes_leaves() -> None:
    chain = Chain(build(ChainConfig, {"lines": {"drop": ["policy"], "most": 0.3}}))
    policy = "\n".join(f"Our privacy policy, part {n}, tells you what we do with the data." for n in range(9))
    some, most = chain.judge([Found("a", n, "text", f"{ENGLISH}\n{policy[:cut]}") for n, cut in enumerate((60, 600))])
    assert isinstance(some, Page)
    assert some.text == ENGLISH
    assert some.meta["lines"] == {"policy": 1}
    assert isinstance(most, Drop)
    assert (most.stage, most.rule, most.threshold) == ("lines", "too_many", 0.3)
    assert most.values["lines.share"] == most.value > 0.5
