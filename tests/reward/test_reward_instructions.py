"""Instructions that a program checks: every kind of IFEval, followed and not, in English and Chinese."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fledge.core.errors import DataError
from fledge.core.readers import read_records
from fledge.core.records import Message, Task
from fledge.reward import verifiers
from fledge.reward.instructions import follow, kinds, sentences, words
from fledge.reward.verifiers import score

ENGLISH = "The quick brown fox jumps over the lazy dog and runs into the forest. "

# kind, values, replies that follow, replies that do not
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["fox", "熊"]}, ["A Fox and a 熊"], ["a fox", "熊"]),
    ("keywords:frequency", {"keyword": "war", "relation": "at least", "frequency": 2}, ["war, War!"], ["war"]),
    ("keywords:frequency", {"keyword": "春天", "relation": "less than", "frequency": 2}, ["春天来了"], ["春天，春天"]),
    ("keywords:forbidden_words", {"forbidden_words": ["art", "坏"]}, ["a party"], ["Art!", "很坏"]),
    (
        "keywords:letter_frequency", {"letter": "!", "let_relation": "at least", "let_frequency": 2},
        ["a! b!"], ["a!"],
    ),
    (
        "keywords:letter_frequency", {"letter": "O", "let_relation": "less than", "let_frequency": 2}, ["Oh"], ["Oo"],
    ),
    ("language:response_language", {"language": "zh"}, ["今天天气很好，我们一起去公园散步吧。"], [ENGLISH]),
    (
        "language:response_language", {"language": "en"},
        [ENGLISH, "3 + 4 = 7", "..."], ["今天天气很好，我们一起去公园散步吧。"],
    ),
    (
        "language:response_language", {"language": "hi"},
        ["आज मौसम बहुत अच्छा है और हम सब साथ में पार्क जा रहे हैं।"], [ENGLISH],
    ),
    (
        "length_constraints:number_sentences", {"relation": "at least", "num_sentences": 3},
        ["One. Two! Three?", "一句。两句！三句？"], ["One. Dr. Who came at 3.5 p.m. yesterday", "一句。两句"],
    ),
    (
        "length_constraints:number_paragraphs", {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***"], ["a", "a\n***\n***\nb", "a\n***\nb\n***\nc"],
    ),
    (
        "length_constraints:number_words", {"relation": "less than", "num_words": 4},
        ["three small words", "三个字"], ["these are four words", "四个汉字"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weekend"},
        ["One.\n\n\"weekend, at last", "One.\n\nweekend's end"], ["Weekend\n\nOne", "One.\n\nTwo.\n\nWeekend"],
    ),
    (
        "length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "周末"},
        ["周末我们去爬山。"], ["我们周末去爬山。"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[name], [address]"], ["[name]"]),
    (
        "detectable_content:postscript", {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. More.", "Bye. p. p. s more"], ["Bye.\nP.S. More."],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP.S. More."], ["Bye. PS more"]),
    ("detectable_content:postscript", {"postscript_marker": "附言"}, ["再见。\n附言：还有"], ["再见。"]),
    (
        "detectable_format:number_bullet_lists", {"num_bullets": 2},
        ["* a\n* b", "Here:\n  - a\n- b"], ["* a", "**a**\n* b", "* a\n* b\n* c"],
    ),
    ("detectable_format:constrained_response", {}, ["My answer is maybe."], ["Maybe.", "My answer is Yes"]),
    ("detectable_format:constrained_response", {"options": ["我的答案是：是。"]}, ["我的答案是：是。"], ["是。"]),
    (
        "detectable_format:number_highlighted_sections", {"num_highlights": 2},
        ["*a* and **b c**"], ["*a*", "** **\n*\na*"],
    ),
    (
        "detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\nx\nSECTION 2\ny"], ["SECTION 1\nx", "Section 1 Section 2"],
    ),
    ("detectable_format:json_format", {}, ['{"a": [1]}', "```json\n[1]\n```"], ["{'a': 1}", "[" * 100_000]),
    ("detectable_format:title", {}, ["<<A poem>>\nx", "《静夜思》\n床前明月光"], ["<< >>", "<A poem>", "《A》"]),
    ("combination:two_responses", {}, ["One.\n******\nTwo."], ["One.", "One.******One.", "a******b******c"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Who am I?"}, ["who am i? You are."], ["You are. Who am I?"]),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, ["Yes. any questions?", '"Any questions?"'], ["Any"]),
    ("startend:quotation", {}, ['"Yes."', "“好的。”", "「好的。」"], ['"', "Yes", "“Yes.”"]),
    (
        "change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 3},
        ["I SAY NO"], ["I say No"],
    ),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, "1 + 1"]),
    ("change_case:english_lowercase", {}, [ENGLISH.lower()], [ENGLISH]),
    ("punctuation:no_comma", {}, ["One and two. 一、二。"], ["One, two.", "一，二。"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "good", "bad"), CASES)
def test_kinds(kind: str, values: dict[str, Any], good: list[str], bad: list[str]) -> None:
    for reply in good:
        assert follow([kind], [values], reply) == [True], reply
    for reply in [*bad, "", " \n"]:
        assert follow([kind], [values], reply) == [False], reply


def test_every_kind_is_tested() -> None:
    assert {case[0] for case in CASES} == set(kinds())
    assert len(kinds()) == 25


def test_loose_forgives_introductions_and_bold_print() -> None:
    names, values = ["startend:quotation", "detectable_format:json_format"], [{}, {}]
    assert follow(names, values, 'Here it is:\n"Yes."') == [False, False]
    assert follow(names, values, 'Here it is:\n"Yes."', loose=True) == [True, True]
    assert follow(names, values, 'Here:\n**{"a": 1}**\nDone.', loose=True) == [False, True]
    assert follow(["punctuation:no_comma"], [{}], "Sure, here:", loose=True) == [False], "an empty rest follows nothing"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One.", 1), ("One. Two", 2), ("This is Mr. Fox, e.g. a fox.", 1), ("J. S. Bach wrote it.", 1),
        ("Wait... what?", 2), ('He said "No." Then he left.', 2), ("It is 3.14. Yes!", 2), ("", 0), ("...", 0),
        ("你好。再见", 2), ("「好。」他说。", 2), ("One.\n\n. . .\nTwo", 2),
    ],
)  # fmt: skip
def test_sentences(text: str, count: int) -> None:
    assert sentences(text) == count


def test_words() -> None:
    assert [words(text) for text in ("it's one_word 3.5", "我有2只dogs", "")] == [5, 5, 0]


def task(answer: dict[str, Any]) -> Task:
    asked = (Message(role="user", content="?"),)
    return Task(id="t", messages=asked, verifier="instructions", answer=answer)


def test_as_a_verifier() -> None:
    answer = {"instructions": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    assert score(task(answer), '"Yes."').value == 1
    found = score(task(answer), 'Sure:\n*"Yes."*')
    assert (found.value, found.detail) == (0, "1 of 2 instructions, loosely 2; not startend:quotation")
    assert score(task(answer | {"loose": True}), 'Sure:\n*"Yes."*').value == 1
    assert score(task(answer | {"partial": True}), "Yes.").value == 0.5


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"instructions": ["startend:quote"], "kwargs": [{}]}, "unknown instruction 'startend:quote'"),
        ({"instructions": ["startend:end_checker"], "kwargs": [{}]}, "misses end_phrase"),
        ({"instructions": ["startend:quotation"], "kwargs": []}, "1 instructions with values for 0"),
        ({"instructions": [], "kwargs": []}, "list of names"),
        (
            {
                "instructions": ["length_constraints:number_words"],
                "kwargs": [{"relation": "about", "num_words": 3}],
            },
            "relation is 'about'",
        ),
    ],
)
def test_what_cannot_be_asked(answer: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        verifiers.validate(task(answer))


def test_ifevals_own_file(real_data: Path) -> None:
    """Every prompt is read as a task whose instructions are known; a reply that ignores them all fails nearly all."""
    path = real_data / "eval" / "ifeval_even" / "input_data_even.jsonl"
    tasks = list(read_records(path, Task))
    assert len(tasks) == 271
    for one in tasks:
        verifiers.validate(one)
    assert {name for one in tasks for name in one.answer["instructions"]} == set(kinds())
    values = [score(one, "Well, I will not, thank you.").value for one in tasks]
    assert sum(values) < 0.1 * len(values)


def test_a_row_of_ifeval_that_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"key": 1, "prompt": "p", "instruction_id_list": ["startend:quotation"], "kwargs": {}}))
    with pytest.raises(DataError, match=r"rows\.jsonl:1: 'kwargs' must be a list"):
        list(read_records(path, Task))


@pytest.mark.parametrize(
    "hostile",
    ["*" * 100_000, "<<" * 50_000, "[" * 100_000, "《" * 50_000, ".!?" * 50_000, "a." * 50_000, "***" * 50_000],
)
def test_hostile_replies_are_cheap(hostile: str) -> None:
    cases = [case for case in CASES if "language" not in case[0] and "english" not in case[0]]
    names, values = [case[0] for case in cases], [case[1] for case in cases]
    started = time.monotonic()
    follow(names, values, hostile, loose=True)
    assert time.monotonic() - started < 5
