"""The rules: what is measured on a page. Each is a pure function of `Measures` -> a value for every page, (pages,).

To add one: write such a function under ``@rule(name, version, source)`` and give it limits, in a set (rule_sets.py) or
in a configuration (``rules.limits.en.NAME: {max: 0.1}``). A changed meaning is a new version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fledge.corpus.judging.language import ENGLISH_FUNCTION_WORDS
from fledge.corpus.judging.measures import Measures, first_of_each, groups, share
from fledge.corpus.judging.repetition import AGAIN, TOP
from fledge.corpus.text.characters import ALNUM, DIGIT, LETTER
from fledge.corpus.text.tokens import hash_tokens

Value = Callable[[Measures], np.ndarray]


@dataclass(frozen=True)
class Rule:
    name: str
    version: int
    source: str
    value: Value


RULES: dict[str, Rule] = {}


def rule(name: str, version: int, source: str) -> Callable[[Value], Value]:
    """Register a value under a name."""

    def register(function: Value) -> Value:
        assert name not in RULES, name
        RULES[name] = Rule(name, version, source, function)
        return function

    return register


# --- quantity ---------------------------------------------------------------------------------------------------


@rule("words", 1, "Gopher A1: words of the page")
def words(page: Measures) -> np.ndarray:
    return page.word_counts


@rule("characters", 1, "CT-LLM row 5, MAP-NEO: characters of the page, without white space")
def characters(page: Measures) -> np.ndarray:
    return page.dense


@rule("lines", 1, "MAP-NEO (RedPajama-v2 signal): lines that are not empty")
def lines(page: Measures) -> np.ndarray:
    return page.line_counts


@rule("sentences", 1, "C4, CT-LLM row 4: sentences of the page")
def sentences(page: Measures) -> np.ndarray:
    return page.sentences


@rule("mean_word_length", 1, "Gopher A1, CT-LLM row 6: characters a word; Chinese words are rjieba's")
def mean_word_length(page: Measures) -> np.ndarray:
    return share(page.per_page(page.words.page, page.words.length), page.word_counts)


# --- symbols ----------------------------------------------------------------------------------------------------

_BULLETS = "•‣▪●○◦■□·*-–"
_BRACKETS = re.compile("【[^】\n]*】|[【】]")
_MORE = ("readmore", "read more", "continue reading", "[...]", "展开", "更多", "全文", "查看详情")
_TERMINAL = ".!?。！？…:：;；\"'”’」』)）]"


_SQUARE = re.compile(r"\[[^\]\n]*\]")
_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s<>\"'，。；、（）]+")
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}|#\d{1,6}|#x[0-9A-Fa-f]{1,5});")


def _share_of(pattern: re.Pattern[str], mark: np.ndarray, page: Measures) -> np.ndarray:
    """Characters that a pattern covers over all; looked for in pages with a marked character only."""
    found = np.zeros(page.pages, dtype=np.int64)
    for number in np.unique(page.of_page(np.flatnonzero(mark))).tolist():
        text = page.normal[page.starts[number] : page.ends[number]]
        found[number] = sum(len(part) for part in pattern.findall(text))
    return share(found, page.dense)


def _ellipses(page: Measures) -> np.ndarray:
    """Runs of points that mean an omission, in each page."""
    dots, stops = (page.runs(page.codes == ord(c)) for c in ".。")
    runs = page.runs(page.codes == ord("…"))
    return sum((page.per_page(s.page) for s in (runs, dots.where(dots.length >= 3), stops.where(stops.length >= 3))),
               np.zeros(page.pages, dtype=np.int64))  # fmt: skip


@rule("hash_signs", 1, "Gopher A1: # per word")
def hash_signs(page: Measures) -> np.ndarray:
    return share(page.count(page.codes == ord("#")), page.word_counts)


@rule("hash_runs", 1, "CT-LLM row 7: runs of # per character")
def hash_runs(page: Measures) -> np.ndarray:
    return share(page.per_page(page.runs(page.codes == ord("#")).page), page.dense)


@rule("ellipses", 1, "Gopher A1: ellipses per word")
def ellipses(page: Measures) -> np.ndarray:
    return share(_ellipses(page), page.word_counts)


@rule("ellipsis_runs", 1, "CT-LLM row 8: ellipses per character")
def ellipsis_runs(page: Measures) -> np.ndarray:
    return share(_ellipses(page), page.dense)


@rule("ellipsis_lines", 1, "Gopher A1, CT-LLM row 10: lines that end in an ellipsis or an invitation to read more")
def ellipsis_lines(page: Measures) -> np.ndarray:
    found = page.ends_with("...") | page.ends_with("…") | page.ends_with("。。。")
    for tail in _MORE:
        found |= page.ends_with(tail)
    return page.line_share(found)


@rule("bullet_lines", 1, "Gopher A1, CT-LLM row 11: lines that begin with a bullet")
def bullet_lines(page: Measures) -> np.ndarray:
    return page.line_share(page.is_one_of(_BULLETS)[page.lines.start] & (page.lines.length > 1))


@rule("alphabetic_words", 1, "Gopher A1: words with a letter; calculations do not count (ours)")
def alphabetic_words(page: Measures) -> np.ndarray:
    words = page.runs(~page.spaces & ~page.calculations)
    with_character, with_letter = (page.has(page.is_class(of), words) for of in (ALNUM, LETTER))
    return share(page.per_page(words.page[with_letter]), page.per_page(words.page[with_character]), empty=1.0)


@rule("bracketed", 1, "CT-LLM row 1: characters inside 【】")
def bracketed(page: Measures) -> np.ndarray:
    return _share_of(_BRACKETS, page.is_one_of("【】"), page)


@rule("square_bracketed", 1, "ours, after CT-LLM row 1: characters inside []")
def square_bracketed(page: Measures) -> np.ndarray:
    return _share_of(_SQUARE, page.codes == ord("["), page)


@rule("addresses", 1, "ours: characters of web addresses")
def addresses(page: Measures) -> np.ndarray:
    mark = page.codes == ord("/")
    mark[1:] |= (page.lowered[1:] == ord("w")) & (page.lowered[:-1] == ord("w"))
    return _share_of(_ADDRESS, mark, page)


@rule("entities", 1, "ours: characters of HTML's entities, which are left where they were escaped twice")
def entities(page: Measures) -> np.ndarray:
    return _share_of(_ENTITY, page.codes == ord("&"), page)


@rule("exclamations", 1, "ours: sentences that end in two or more exclamation marks, where there are three and more")
def exclamations(page: Measures) -> np.ndarray:
    runs = page.runs(page.is_one_of("!！"))
    loud = page.per_page(runs.page[runs.length > 1])
    return np.where(loud > 2, share(loud, page.sentences), 0.0)


@rule("digits", 1, "CT-LLM row 9: digits of letters and digits; calculations do not count (ours)")
def digits(page: Measures) -> np.ndarray:
    return share(page.count(page.outside_calculations(DIGIT)), page.count(page.outside_calculations(ALNUM)))


@rule("punctuation", 1, "CT-LLM row 12: share of characters that are neither letter nor digit")
def punctuation(page: Measures) -> np.ndarray:
    return 1 - share(page.count(page.is_class(ALNUM)), page.dense)


@rule("curly_brackets", 1, "C4, MAP-NEO: share of characters that are { or }")
def curly_brackets(page: Measures) -> np.ndarray:
    return share(page.count(page.is_one_of("{}")), page.dense)


@rule("terminal_lines", 1, "FineWeb, FineWeb-2: lines that end in punctuation")
def terminal_lines(page: Measures) -> np.ndarray:
    return page.line_share(page.is_one_of(_TERMINAL)[page.lines.end - 1])


@rule("short_lines", 1, "FineWeb: lines of fewer than 30 characters")
def short_lines(page: Measures) -> np.ndarray:
    return page.line_share(page.lines.length < 30)


@rule("line_breaks", 1, "FineWeb's code, FineWeb-2: line breaks per word")
def line_breaks(page: Measures) -> np.ndarray:
    return share(page.count(page.codes == ord("\n")), page.word_counts)


@rule("capitals", 1, "MAP-NEO (RedPajama-v2 signal): words all in capitals, of two letters and more")
def capitals(page: Measures) -> np.ndarray:
    letters, small = page.is_class(LETTER), page.lowered == page.codes
    runs = page.runs(letters)
    return share(page.per_page(runs.page[~page.has(small, runs) & (runs.length > 1)]), page.per_page(runs.page))


@rule("lorem_ipsum", 1, "C4: how often 'lorem ipsum' occurs")
def lorem_ipsum(page: Measures) -> np.ndarray:
    return page.phrases(("lorem ipsum",))


# --- notices, menus, stubs ---------------------------------------------------------------------------------------

_NOTICES = (
    "cookie", "privacy policy", "terms of use", "terms of service", "all rights reserved", "without warranty", "©",
    "隐私政策", "使用条款", "服务条款", "版权所有", "免责声明", "侵权", "不得转载",
)  # fmt: skip
_MENU = (
    "home", "about us", "contact", "sign in", "log in", "register", "search", "help", "my account", "next", "previous",
    "back to top", "newsletter", "首页", "登录", "注册", "搜索", "关于我们", "联系我们", "返回顶部", "上一页", "下一页",
    "网站地图", "购物车",
)  # fmt: skip
_PLACEHOLDERS = (
    "under construction", "coming soon", "page not found", "could not be found", "default page of",
    "enable javascript", "access denied", "建设中", "敬请期待", "页面不存在", "无法访问", "没有权限", "启用javascript",
)  # fmt: skip
_STUB = 400  # characters: longer pages say more than that there is nothing


@rule("boilerplate", 1, "ours: phrases of notices, and lines of menus, per sentence or line")
def boilerplate(page: Measures) -> np.ndarray:
    hashes = page.hasher(page.lines.start, page.lines.end)
    found = page.phrases(_NOTICES) + page.per_page(page.lines.page[np.isin(hashes, hash_tokens(_MENU))])
    return share(found, np.maximum(page.sentences, page.line_counts))


@rule("placeholders", 1, "ours: phrases of pages that say that there is nothing, on short ones")
def placeholders(page: Measures) -> np.ndarray:
    return np.where(page.dense <= _STUB, page.phrases(_PLACEHOLDERS), 0)


# --- wording ----------------------------------------------------------------------------------------------------

_STOP_EN = ("the", "be", "to", "of", "and", "that", "have", "with")
_STOP_ZH = "的年在月是和日了於于为為有被人中他与與後后也而由"


@rule("stop_words", 1, "Gopher A1: how many of eight common words; in Chinese, of the characters of FineWeb-2's list")
def stop_words(page: Measures) -> np.ndarray:
    if page.language == "zh":
        return page.count(page.is_one_of(_STOP_ZH))
    return page.per_page(page.plain_words.page[np.isin(page.plain_hashes, hash_tokens(_STOP_EN))])


@rule("function_words", 1, "ours, after Gopher's stop words: share of words among a hundred common ones")
def function_words(page: Measures) -> np.ndarray:
    found = np.isin(page.plain_hashes, hash_tokens(sorted(ENGLISH_FUNCTION_WORDS)))
    return share(page.per_page(page.plain_words.page[found]), page.word_counts)


@rule("stop_word_share", 1, "MAP-NEO (RedPajama-v2 signal): of words")
def stop_word_share(page: Measures) -> np.ndarray:
    return share(stop_words(page), page.dense if page.language == "zh" else page.per_page(page.plain_words.page))


@rule("unique_words", 1, "MAP-NEO (RedPajama-v2 signal): share of different words among the first 1,000")
def unique_words(page: Measures) -> np.ndarray:
    """Of the first 1,000 words, because the share falls with length in any text."""
    some = _first(page.plain_words.page, 1000)
    of, hashes = page.plain_words.page[some], page.plain_hashes[some]
    return share(page.per_page(of[first_of_each(hashes, of)]), page.per_page(of), empty=1.0)


@rule("unique_characters", 1, "CT-LLM row 13: share of different characters among the first 500")
def unique_characters(page: Measures) -> np.ndarray:
    places = np.flatnonzero(~page.spaces)
    of = page.of_page(places)
    some = _first(of, 500)
    different = np.unique(of[some] << 21 | page.codes[places[some]].astype(np.int64)) >> 21
    return share(page.per_page(different), page.per_page(of[some]), empty=1.0)


def _first(page: np.ndarray, most: int) -> np.ndarray:
    """Which of entries that lie page by page are among the first of theirs."""
    number = np.arange(len(page))
    return number - np.searchsorted(page, page, side="left") < most


@rule("entropy", 1, "CT-LLM row 14: of words, in nats")
def entropy(page: Measures) -> np.ndarray:
    order, begin = groups(page.plain_hashes, page.plain_words.page)
    of, counts = page.plain_words.page[order[begin]], np.diff(np.append(begin, len(order)))
    rising = np.lexsort((counts, of))  # the last bit of a sum depends on its order, and that of hashes on other pages
    of, counts = of[rising], counts[rising]
    chance = counts / page.per_page(page.plain_words.page)[of]
    return np.abs(page.per_page(of, -chance * np.log(chance)))


# --- repetition -------------------------------------------------------------------------------------------------


@rule("duplicate_lines", 1, "Gopher A1: share of lines that occurred before")
def duplicate_lines(page: Measures) -> np.ndarray:
    return page.line_share(page.repeated_lines)


@rule("duplicate_line_characters", 1, "Gopher A1, FineWeb: share of characters that stand in such lines")
def duplicate_line_characters(page: Measures) -> np.ndarray:
    lines = page.lines
    again = page.per_page(lines.page[page.repeated_lines], lines.length[page.repeated_lines])
    return share(again, page.per_page(lines.page, lines.length))


@rule("duplicate_sentences", 1, "CT-LLM, in its code but not called: share of sentences that occurred before")
def duplicate_sentences(page: Measures) -> np.ndarray:
    spans = page.sentence_spans
    again = ~first_of_each(page.hasher(spans.start, spans.end), spans.page)
    return share(page.per_page(spans.page[again]), page.per_page(spans.page))


@rule("duplicate_paragraphs", 1, "Gopher A1: share of paragraphs, between blank lines, that occurred before")
def duplicate_paragraphs(page: Measures) -> np.ndarray:
    return page.paragraph_shares[0]


@rule("duplicate_paragraph_characters", 1, "Gopher A1: share of characters that stand in such paragraphs")
def duplicate_paragraph_characters(page: Measures) -> np.ndarray:
    return page.paragraph_shares[1]


_TOP_SOURCE = "Gopher A1, CT-LLM row 16: share of characters in the repetitions of the most frequent one"
_AGAIN_SOURCE = "Gopher A1, CT-LLM row 17: share of characters in those that occurred before"


def _register_ngrams() -> None:
    for n in TOP:
        rule(f"top_{n}gram", 1, _TOP_SOURCE)(lambda page, n=n: page.repetition[f"top_{n}"])  # type: ignore[misc]
    for n in AGAIN:
        name = f"duplicate_{n}grams"
        rule(name, 1, _AGAIN_SOURCE)(lambda page, n=n: page.repetition[f"again_{n}"])  # type: ignore[misc]


_register_ngrams()

# --- code -------------------------------------------------------------------------------------------------------


@rule("longest_line", 1, "StarCoder (2305.06161): data and minified files have very long lines")
def longest_line(page: Measures) -> np.ndarray:
    found = np.zeros(page.pages, dtype=np.int64)
    np.maximum.at(found, page.lines.page, page.lines.length)
    return found


@rule("mean_line", 1, "StarCoder: characters a line")
def mean_line(page: Measures) -> np.ndarray:
    return share(page.per_page(page.lines.page, page.lines.length), page.line_counts)


@rule("alphanumeric", 1, "StarCoder: share of characters that are letters or digits")
def alphanumeric(page: Measures) -> np.ndarray:
    return share(page.count(page.is_class(ALNUM)), page.dense)
