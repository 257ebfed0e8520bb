"""Values of rules on text made by hand, limits, language, damage, personal data, abuse."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rjieba
from corpus_pages import CHINESE, ENGLISH

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.corpus.judging import rule_pages
from fledge.corpus.judging.damage import damage
from fledge.corpus.judging.language import LanguageConfig, identify, scores
from fledge.corpus.judging.measures import Measures
from fledge.corpus.judging.personal import find_personal, luhn, mask, valid_identity
from fledge.corpus.judging.rule_sets import SETS, Limits
from fledge.corpus.judging.rulebook import RULES
from fledge.corpus.judging.rules import Broken, RulesConfig, judge, measure
from fledge.corpus.judging.toxic import ToxicConfig, toxicity
from fledge.corpus.text.tokens import hash_tokens, tokens


def value(rule: str, text: str, language: str = "en") -> float:
    """Of a text among others, on which nothing may depend."""
    return float(RULES[rule].value(Measures([ENGLISH, text, "", CHINESE], language))[1])


def broken_by(text: str, language: str, config: RulesConfig | None = None) -> Broken | None:
    config = config or RulesConfig()
    return judge(measure(Measures([text], language), config), config.table(language), 1)[0]


@pytest.mark.parametrize(
    ("rule", "text", "language", "expected"),
    [
        ("words", "one two  three\nfour", "en", 4),
        ("characters", "你好 世界\n12", "zh", 6),
        ("mean_word_length", "a bbb", "en", 2),
        ("mean_word_length", "我们喜欢音乐。", "zh", 2),
        ("sentences", "一。二！三", "zh", 2),
        ("hash_signs", "# one two three", "en", 0.25),
        ("ellipses", "wait... no… yes really", "en", 0.5),
        ("ellipsis_lines", "one...\ntwo\n点击展开\nread more", "en", 0.75),
        ("bullet_lines", "• one\n- two\nthree\n* four", "en", 0.75),
        ("alphabetic_words", "one 2 three 44", "en", 0.5),
        ("alphabetic_words", "one 3 + 4 = 7 two", "en", 1.0),
        ("bracketed", "【广告】正文正文", "zh", 0.5),
        ("digits", "甲12", "zh", 2 / 3),
        ("digits", "甲乙 3+8=11", "zh", 0.0),
        ("punctuation", "好，。好", "zh", 0.5),
        ("terminal_lines", "one.\ntwo\n三。\nfour!", "en", 0.75),
        ("lorem_ipsum", "Lorem ipsum dolor, lorem ipsum", "en", 2),
        ("stop_words", "the cat and the hat", "en", 3),
        ("stop_words", "他是我的朋友", "zh", 3),
        ("function_words", "Prime rib was tough. Staff were pleasant.", "en", 2 / 7),
        ("function_words", "cheap watches online shop", "en", 0),
        ("unique_words", "a b a c", "en", 0.75),
        ("unique_characters", "好好学学", "zh", 0.5),
        ("entropy", "a b a b", "en", 0.6931471805599453),
        ("duplicate_lines", "x\ny\nx\nx", "en", 0.5),
        ("duplicate_line_characters", "aaaa\nbb\naaaa", "en", 0.4),
        ("top_2gram", "ab cd xx ab cd", "en", 0.4),
        ("top_2gram", "一 two 三 four", "zh", 0.0),
        ("duplicate_5grams", "a b c d e a b c d e", "en", 0.5),
        ("duplicate_5grams", "a b c d e f g h i j", "en", 0.0),
        ("duplicate_10grams", "你好世界和平今天天气" * 2, "zh", 0.5),
        ("longest_line", "x = 1\nlonger = 22", "code", 11),
        ("mean_line", "ab\nabcd", "code", 3),
        ("alphanumeric", "ab()", "code", 0.5),
    ],
)
def test_values(rule: str, text: str, language: str, expected: float) -> None:
    assert value(rule, text, language) == pytest.approx(expected)


def test_rules_are_pure_and_named() -> None:
    texts = (ENGLISH, CHINESE, "", "x", "你", " \n ", "a\0b", "\ud800", "1.5 " * 40, "-", "2 + 2", "【")
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.version >= 1
        assert rule.source
        for language in ("en", "zh", "code"):
            together = rule.value(Measures(texts, language)).tolist()
            assert together == [float(rule.value(Measures([text], language))[0]) for text in texts], name
            assert np.isfinite(together).all()
        assert len(rule.value(Measures([], "en"))) == 0
    assert all(name in RULES for tables in SETS.values() for table in tables.values() for name in table)


def literal_repetition(tokens: list[str]) -> dict[str, float]:
    """The definitions, word by word."""
    whole, found = sum(map(len, tokens)), {}
    for n in range(2, 11):
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        if n <= 4:
            counts = Counter(grams)
            most = max(counts.values(), default=1)
            widest = max((sum(map(len, gram)) for gram, count in counts.items() if count == most), default=0)
            found[f"top_{n}"] = min(1.0, (most - 1) * widest / whole) if whole else 0.0
        else:
            seen, covered = set(), set()
            for i, gram in enumerate(grams):
                covered |= set(range(i, i + n)) if gram in seen else set()
                seen.add(gram)
            found[f"again_{n}"] = sum(len(tokens[i]) for i in covered) / whole if whole else 0.0
    return found


def test_repetition_is_what_its_definitions_say() -> None:
    generator = random.Random(5)
    texts = [" ".join(generator.choices(["a", "bb", "ccc", "中", "dddd"][:kinds], k=length))
             for kinds in (1, 2, 5) for length in (0, 1, 2, 9, 10, 11, 60, 300)]  # fmt: skip
    measures = Measures([*texts, ENGLISH, CHINESE], "en")
    for number, text in enumerate([*texts, ENGLISH, CHINESE]):
        want = literal_repetition(tokens(text))
        assert {name: float(shares[number]) for name, shares in measures.repetition.items()} == pytest.approx(want)


def test_words_lines_and_hashes_of_many_pages_are_those_of_one() -> None:
    texts = [
        ENGLISH,
        "Ｈello, wörld_42！ 你好，ABC中x ΟΔΟΣ İstanbul",
        "",
        CHINESE,
        "don't re-use 'it' -- or-",
        "\n\na\r\n\n b",
    ]
    measures = Measures(texts, "en")
    for text, hashes in zip(texts, measures.page_hashes(), strict=True):
        assert np.array_equal(hashes, hash_tokens(tokens(text)))
        assert len(set(hashes.tolist())) == len(set(tokens(text)))
    shown = [[] for _ in texts]  # type: ignore[var-annotated]
    for start, end, page in zip(
        measures.plain_words.start, measures.plain_words.end, measures.plain_words.page, strict=True
    ):
        shown[page].append(measures.normal[start:end])
    for text, words in zip(texts, shown, strict=True):
        assert words == re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", unicodedata.normalize("NFKC", text))
    assert measures.line_counts.tolist() == [sum(bool(line.strip()) for line in text.split("\n")) for text in texts]
    cut = Measures(texts, "zh")
    assert cut.word_counts[3] == sum(
        bool(re.search(r"\w", word)) for word in rjieba.cut(unicodedata.normalize("NFKC", CHINESE))
    )


def test_paragraphs_that_come_again() -> None:
    text = "one two\nthree\n\nfour\n\none two\nthree\n\n\nfive"
    assert value("duplicate_paragraphs", text) == pytest.approx(1 / 4)
    assert value("duplicate_paragraph_characters", text) == pytest.approx(12 / (12 + 4 + 12 + 4))
    assert value("duplicate_lines", text) == pytest.approx(2 / 6)
    assert value("capitals", "NASA and a BIG cat I saw") == pytest.approx(2 / 7)
    assert value("short_lines", "short\n" + "long " * 10) == 0.5
    assert value("hash_runs", "## a #b") == pytest.approx(2 / 5)


def test_limits_replace_defaults_and_unknown_rules_are_refused() -> None:
    config = build(RulesConfig, {"limits": {"en": {"words": {"min": 200}, "stop_words": None}}})
    broken = broken_by(ENGLISH, "en", config)
    assert broken is not None
    assert (broken.rule, broken.threshold) == ("words", 200)
    assert "stop_words" not in config.table("en")
    assert config.table("zh") == SETS["zh"]["fledge"]
    assert config.table("de") == {}
    assert broken_by(ENGLISH, "en") is None
    assert broken_by(CHINESE, "zh") is None
    assert Limits(min=1, max=2).broken(2.0) is None
    with pytest.raises(ConfigError, match="there is no such rule"):
        build(RulesConfig, {"limits": {"en": {"wordz": {"min": 1}}}})


def test_published_sets_take_the_place_of_ours_and_can_be_laid_over_one_another() -> None:
    config = build(RulesConfig, {"sets": {"en": ["gopher", "c4", "fineweb"], "zh": "ct_llm"}})
    table = config.table("en")
    assert (table["words"].min, table["stop_words"].min, table["sentences"].min) == (50, 2, 5)
    assert table["duplicate_line_characters"].max == 0.1  # FineWeb's, which is named after Gopher's
    assert config.table("code") == SETS["code"]["fledge"]
    assert build(RulesConfig, config.plain()) == config
    repeated = ("今天天气很好，我们去公园散步。" * 5 + "孩子们在湖边放风筝，老人们坐在树下聊天。" * 9) * 3
    assert broken_by(repeated, "zh", config).rule.startswith(("top_", "duplicate_", "unique_"))  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"zh: there is no set 'gopher'; sets: fledge, fineweb2"):
        build(RulesConfig, {"sets": {"zh": ["gopher"]}})


def test_what_the_published_code_of_ct_llm_lets_pass() -> None:
    """Its repetition rules drop nothing: the paper's do."""
    text = ("春天到了，公园里的花都开了，很多人来这里散步、拍照，孩子们跑来跑去。" * 30)[:900]
    as_printed, as_shipped = (build(RulesConfig, {"sets": {"zh": name}}) for name in ("ct_llm", "ct_llm_code"))
    off = {"limits": {"zh": {"unique_characters": None, "entropy": None}}}
    as_printed, as_shipped = (build(RulesConfig, {**c.plain(), **off}) for c in (as_printed, as_shipped))
    assert broken_by(text, "zh", as_printed).rule == "duplicate_5grams"  # type: ignore[union-attr]
    assert broken_by(text, "zh", as_shipped) is None


def test_keyword_lists_break_a_rule() -> None:
    english = "cheap watches buy cheap watches best cheap watches online discount watches shop " * 12
    chinese = "便宜手表 名牌手表 手表批发 手表价格 手表图片 " * 20
    for text, language in ((english, "en"), (chinese, "zh")):
        broken = broken_by(text, language)
        assert broken is not None
        assert broken.rule.startswith(("unique_", "top_", "duplicate_", "entropy"))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("你好", "zh"), ("小明今年十二岁", "zh"),
        ("苹果 apple 香蕉 banana 橙子 orange", "zh"), ("3 + 4 = 7，所以答案是 7。", "zh"),
        (CHINESE, "zh"), (ENGLISH, "en"), ("Who are you?", "en"), ("Mira Talen was born in Orvik in 1950.", "en"),
        ("Das ist ein kurzer Satz über das Wetter und die Leute in der Stadt.", "de"),
        ("川は山から海へ流れます。子供たちは学校へ行きます。", "ja"),
        ("강은 산에서 바다로 흐릅니다. 아이들은 학교에 갑니다.", "ko"),
    ],
)  # fmt: skip
def test_languages(text: str, language: str) -> None:
    config = LanguageConfig()
    found, score = identify(text, config)
    assert found == language
    assert language not in config.keep or score >= config.threshold(language)


def test_the_whole_text_is_read() -> None:
    """The library's default looks at 80 characters only."""
    assert max(scores(ENGLISH[:90] + "Die Kinder gehen im Frühling mit dem Boot zur Schule. " * 40).items())[0] != "en"
    text = "Hello there. " + "Die Kinder gehen im Frühling mit dem Boot zur Schule. " * 20
    assert identify(text, LanguageConfig())[0] == "de"
    assert identify("12 + 7 = 19 --- 4", LanguageConfig())[0] == "und"


@pytest.mark.parametrize(("language", "least"), [("zh", 0.97), ("en", 0.97)])
def test_real_sentences_are_kept(real_data: Path, language: str, least: float) -> None:
    files = sorted((real_data / "text" / "langid_lingua" / language).rglob("*sentences*"))
    lines = [line for line in files[0].read_text(encoding="utf-8").splitlines() if line.strip()][:300]
    config = LanguageConfig()
    results = [identify(line, config) for line in lines]
    kept = sum(found == language and score >= config.threshold(language) for found, score in results)
    assert kept >= least * len(lines)


@pytest.mark.parametrize(
    ("wrong", "right", "text"),
    [
        ("cp1252", "utf-8", "Un café très élégant près de l’église, où l’on goûte des crêpes à la crème brûlée."),
        ("latin-1", "gb18030", CHINESE),
        ("gb18030", "utf-8", CHINESE),
    ],
)
def test_mojibake_is_found(wrong: str, right: str, text: str) -> None:
    broken = text.encode(right).decode(wrong, "replace")
    share, count = damage(broken)
    assert share > 0.5
    assert count > 6
    assert damage(ENGLISH + " " + broken)[0] > 0.1


def test_sound_text_is_not_mojibake() -> None:
    for text in (
        CHINESE,
        ENGLISH,
        "Café, naïve, Zürich — “quoted” … €5 © 2020",
        "Привет, мир",
        "𝒜𝒷 ∑ α→β",
        "龘靐齉爩 生僻字 犇猋骉",
    ):
        assert damage(text)[0] < 0.1, text
    assert damage(CHINESE + "\ufffd" * 30)[1] == 30


def test_personal_data_is_found_and_masked() -> None:
    text = (
        "Write to mira.t+x@mail.example.org or call +44 20 7946 0018, (555) 234-5678. "
        "手机13812345678，座机010-62345678。"
        "身份证11010519491231002X，卡号6222 0212 3456 7894。"
    )
    found = find_personal(text)
    kinds = [item.kind for item in found]
    assert kinds.count("email") == 1
    assert kinds.count("identity") == 1
    assert kinds.count("phone") >= 4
    hidden = mask(text, found)
    assert "mira" not in hidden
    assert "13812345678" not in hidden
    assert find_personal(hidden) == []


def test_checksums() -> None:
    assert valid_identity("11010519491231002X")
    assert not valid_identity("110105194912310021")
    assert not valid_identity("11010519490231002X")
    assert luhn("4111 1111 1111 1111")
    assert not luhn("4111 1111 1111 1112")
    assert not luhn("0000 0000 0000 0000")


def test_numbers_that_are_not_personal() -> None:
    for text in (
        "The year 1984 and 2001; 3.14159265358979; 12345+67890=80235; version 10.2.33.4001",
        "x @ self.weight, @decorator",
        "1234567 people, 2024-03-01 12:30:45, ISBN 978-7-111-12345", ENGLISH, CHINESE,
    ):  # fmt: skip
        assert find_personal(text) == [], text


def test_abuse_is_dense() -> None:
    config = ToxicConfig()
    english = "You stupid idiot, shut up, you worthless moron, nobody likes you."
    for text in (english, "你这个白痴，滚蛋吧，真是废物，笨蛋一个，闭嘴！"):
        density, weight = toxicity(text)
        assert density > config.density
        assert weight >= config.least
    density, weight = toxicity(ENGLISH * 3 + " It was a stupid mistake.")
    assert density <= config.density or weight < config.least
    assert toxicity(ENGLISH) == (0.0, 0.0)


def test_every_set_has_its_page_and_it_is_that_of_the_code() -> None:
    assert set(rule_pages.ABOUT) == {name for sets in SETS.values() for name in sets}
    folder = Path(__file__).parents[2] / "docs" / "rules"
    for name in rule_pages.ABOUT:
        written = (folder / f"{name}.md").read_text(encoding="utf-8")
        assert written == rule_pages.page(name), "python -m fledge.corpus.judging.rule_pages docs/rules"
