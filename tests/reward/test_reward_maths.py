"""Answers to mathematics questions (SPEC J.9)."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from fledge.reward.maths import check_answer, extract_answer, numbers, same_answer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1/2", "0.5"),
        ("1/2", r"\frac12"),
        (r"\frac{1}{2}", "0.5"),
        (r"\dfrac{1}{2}", "1/2"),
        (r"\frac{-1}{2}", r"-\frac{1}{2}"),
        ("1,000", "1000"),
        ("12", "12.0"),
        ("{1,2}", "{2,1}"),
        (r"\{1,2\}", "{2, 1}"),
        ("(1,2)", "(1, 2)"),
        ("(1/2, 3)", r"\left(\frac{1}{2}, 3.0\right)"),
        ("[0, 1)", "[0,1)"),
        ("1 1/2", "1.5"),
        (r"2\frac{1}{2}", "2.5"),
        ("50%", "50"),
        (r"50\%", "50%"),
        ("$18", "18"),
        (r"\$18.00", "18"),
        (r"18\text{ dollars}", "18"),
        ("5 cm", "5"),
        ("5 cm^2", "5"),
        ("60 km/h", "60"),
        ("5米", "5"),
        ("90^\\circ", "90"),
        ("x = 5", "5"),
        ("１２", "12"),
        ("3.14159", "3.1416"),
        ("1/3", "0.3333"),
        (r"3\times 10^{5}", "300000"),
        ("3e5", "300,000"),
        (r"\text{Monday}", "monday"),
        (r"2\sqrt{3}", r"2 \sqrt{3}"),
        ("42.", "42"),
    ],
)
def test_equal_answers(one: str, other: str) -> None:
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(1,2)", "(2,1)"),
        ("", ""),
        ("", "0"),
        (" ", " "),
        ("3 and 4", "3"),
        ("3 and 4", "4"),
        ("100000", "100001"),
        ("0.5", "0.501"),
        ("[0,1)", "(0,1)"),
        ("{1,1,2}", "{1,2,2}"),
        ("{1,2}", "{1,2,3}"),
        ("1/0", "1"),
        ("1,00", "100"),
        ("-5", "5"),
        ("2**3", "8"),
        ("__import__('os').getpid()", "1"),
        (r"\sqrt{4}", "2"),
        ("5", "(5,6)"),
    ],
)
def test_different_answers(one: str, other: str) -> None:
    assert not same_answer(one, other)
    assert not same_answer(other, one)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"so \boxed{3} ... no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, \frac{2}{3}\}}", r"\{1, \frac{2}{3}\}"),
        (r"\boxed{7} and then \boxed{8", "7"),
        ("She has 3 and 4, then\n#### 1,234", "1,234"),
        ("The answer is 5 apples. There were 9.", "5 apples"),
        ("The answer is 3.5.", "3.5"),
        ("the final answer is: -2", "-2"),
        ("所以答案是：１２个。一共3步", "１２个"),
        ("答案为 7", "7"),
        ("2 + 3 = 5, and 5 + 1 = 6", "6"),
        ("nothing here", ""),
        ("", ""),
    ],
)
def test_extraction(reply: str, answer: str) -> None:
    assert extract_answer(reply) == answer


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        ("72", "Natalia sold 48/2 = 24 clips.\n#### 72", True),
        ("Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72", r"\boxed{72}", True),
        ("72", "The answer is approximately 72 clips in total", True),
        ("72", "The answer is 72 or 73", False),
        ("3", "3 and 4", False),
        ("3", "", False),
        ("0.5", r"\boxed{\frac12}", True),
        ("-3", "1 - 4 = -3", True),
        ("3", "so we get 10-3", True),
        ("(2, 3)", r"\boxed{(3, 2)}", False),
    ],
)
def test_whole_replies(gold: str, reply: str, right: bool) -> None:
    assert check_answer(gold, reply)[0] is right


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("一共有1,234,567.5元", [Fraction("1234567.5")]),
        ("1,2,3", [1, 2, 3]),
        ("1,2345", [1, 2345]),
        ("3，400", [3, 400]),
        ("等于－5", [-5]),
        ("等于-5", [-5]),
        ("10-7=3", [10, 7, 3]),
        ("x-7", [7]),
        ("(2)-1", [2, 1]),
        ("−4 and +5", [-4, 5]),
        (".5 or 0.25.", [Fraction(1, 2), Fraction(1, 4)]),
        ("v1.2.3", [Fraction("1.2"), Fraction("0.3")]),
        ("٣", []),
        ("5.", [5]),
    ],
)
def test_numbers(text: str, found: list[Fraction]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize(
    "hostile",
    [
        "1," * 100_000,
        "1,111" + ",111" * 50_000 + ",1",
        "9" * 200_000,
        r"\boxed{" * 20_000,
        "{" * 100_000,
        "(" * 300 + ")" * 300,
        "answer is " * 20_000,
        r"\frac{1}{" * 1000,
        "1e99999999999",
        r"3\times 10^{99999999999999}",
        "a" * 100_000 + "1",
        "5 " + "a " * 50_000,
        "5 " + "aa." * 130,
        "[" * 150 + "1,2" + "]" * 150,
        "```\n" * 20_000,
    ],
)
def test_hostile_replies_are_cheap(hostile: str) -> None:
    started = time.monotonic()
    check_answer("1", hostile)
    check_answer(hostile, hostile)
    same_answer(hostile, "1")
    assert time.monotonic() - started < 2.0
