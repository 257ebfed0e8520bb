"""Values of rules on text made by hand, limits, language, damage, personal data, abuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpus_pages import CHINESE, ENGLISH

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.corpus.damage import damage
from fledge.corpus.language import LanguageConfig, identify, scores
from fledge.corpus.measures import Measures
from fledge.corpus.personal import find_personal, luhn, mask, valid_identity
from fledge.corpus.rules import LIMITS, RULES, Limits, RulesConfig, judge
from fledge.corpus.toxic import ToxicConfig, toxicity


def value(rule: str, text: str, language: str = "en") -> float:
    return RULES[rule].value(Measures(text, language))


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
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.version >= 1
        assert rule.source
        for text in (ENGLISH, CHINESE, "", "x", "你"):
            for language in ("en", "zh", "code"):
                assert rule.value(Measures(text, language)) == rule.value(Measures(text, language))
    assert all(name in RULES for table in LIMITS.values() for name in table)


def test_limits_replace_defaults_and_unknown_rules_are_refused() -> None:
    config = build(RulesConfig, {"limits": {"en": {"words": {"min": 200}, "stop_words": None}}})
    broken = judge(Measures(ENGLISH, "en"), config)
    assert broken is not None
    assert (broken.rule, broken.threshold) == ("words", 200)
    assert config.limits["en"]["stop_words"] is None
    assert config.limits["zh"] == LIMITS["zh"]
    assert judge(Measures(ENGLISH, "en"), RulesConfig()) is None
    assert judge(Measures(CHINESE, "zh"), RulesConfig()) is None
    assert Limits(min=1, max=2).broken(2.0) is None
    with pytest.raises(ConfigError, match="there is no such rule"):
        build(RulesConfig, {"limits": {"en": {"wordz": {"min": 1}}}})


def test_keyword_lists_break_a_rule() -> None:
    english = "cheap watches buy cheap watches best cheap watches online discount watches shop " * 12
    chinese = "便宜手表 名牌手表 手表批发 手表价格 手表图片 " * 20
    for text, language in ((english, "en"), (chinese, "zh")):
        broken = judge(Measures(text, language), RulesConfig())
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
