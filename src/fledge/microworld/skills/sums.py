"""Sums with worked steps, digit by digit from the right, carries spelled out.

The same steps serve one to four digits, so that what a model learns of the short ones reaches towards the long.
"""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random

from fledge.microworld.skills.base import Item, Split, choose_wording
from fledge.microworld.world import World

ASK: dict[str, tuple[str, ...]] = {
    "en": ("What is {a}+{b}?", "{a}+{b}=?", "Calculate {a}+{b}.", "Add {a} and {b}.", "Please work out {a}+{b}.",
           "How much is {a} plus {b}?", "Find the sum of {a} and {b}.", "{a} + {b} equals what?",
           "What do you get when you add {a} and {b}?", "Sum up {a} and {b}.", "What is the total when {a} and {b} are added?",
           "If you have {a} and get {b}, how many is that?", "{a} and {b} make how many?", "Please tell me {a}+{b}.",
           "Compute the sum {a}+{b}.",
           # held out
           "Compute {a}+{b} for me.", "Tell me the total of {a} and {b}.", "I have {a} and get {b} more. How many?",
           "How many are {a} and {b} together?", "Do the sum {a}+{b}."),
    "zh": ("{a}+{b}等于多少？", "{a}+{b}=?", "计算{a}+{b}。", "请算一算{a}+{b}。", "{a}加{b}是多少？", "求{a}和{b}的和。",
           "{a}加上{b}得多少？", "{a} + {b} 等于几？", "把{a}和{b}加起来。", "{a}和{b}相加得几？", "请把{a}与{b}相加。", "算出{a}加{b}的结果。",
           "有{a}个，又得到{b}个，共有几个？", "{a}和{b}一共是多少？", "帮我算{a}加{b}。",
           # held out
           "帮我算出{a}+{b}。", "{a}与{b}相加，结果是什么？", "我有{a}个，又来了{b}个，一共几个？", "{a}和{b}合起来是几？", "请问{a}+{b}等于几？"),
}  # fmt: skip
HELD_OUT = 5
EASY_SHARE, HARD_SHARE = 0.2, 0.1
_TRAINING = ((2, 2), (1, 2), (2, 1), (1, 1), (3, 2), (2, 3))
_WEIGHTS = (0.44, 0.06, 0.06, 0.04, 0.2, 0.2)


def key(a: int, b: int) -> str:
    return f"sum:{min(a, b)}+{max(a, b)}"


def is_test(world: World, a: int, b: int) -> bool:
    """Whether the pair is the tests' own. One-digit operands never are: the steps of every sum contain them."""
    low, high = min(a, b), max(a, b)
    if low < 10:
        return False
    return world.held_out(key(a, b), EASY_SHARE if high < 100 else HARD_SHARE)


def operands(world: World, rng: random.Random, digits: tuple[int, int], split: Split) -> tuple[int, int]:
    """Two numbers of the given numbers of digits, on the right side of the split."""
    while True:
        a, b = (rng.randint(10 ** (d - 1) if d > 1 else 0, 10**d - 1) for d in digits)
        if is_test(world, a, b) == (split == "test"):
            return a, b


def work_out(a: int, b: int, language: str) -> str:
    """The steps and the result: ``7+5=12, write 2 carry 1; 3+4+1=8, write 8. 37+45=82``."""
    x, y = str(a)[::-1], str(b)[::-1]
    width = max(len(x), len(y))
    steps, carry = [], 0
    for i in range(width):
        first, second = x[i] if i < len(x) else "0", y[i] if i < len(y) else "0"
        total = int(first) + int(second) + carry
        left = f"{first}+{second}" + (f"+{carry}" if carry else "") + f"={total}"
        carry = total // 10
        if i == width - 1:
            steps.append(f"{left}, write {total}" if language == "en" else f"{left}，写{total}")
        elif language == "en":
            steps.append(f"{left}, write {total % 10}" + (f" carry {carry}" if carry else ""))
        else:
            steps.append(f"{left}，写{total % 10}" + (f"进{carry}" if carry else ""))
    return (f"{'; '.join(steps)}. " if language == "en" else f"{'；'.join(steps)}。") + f"{a}+{b}={a + b}"


def _wrong(a: int, b: int, language: str) -> tuple[str, ...]:
    """The right steps with a wrong result, and a result without steps that forgets the carries."""
    forgotten = sum((int(str(a).zfill(4)[-i]) + int(str(b).zfill(4)[-i])) % 10 * 10 ** (i - 1) for i in range(1, 5))
    off = a + b + 10 if (a + b) % 3 else a + b + 1
    right = work_out(a, b, language)
    answers = [right[: right.rindex("=") + 1] + str(off)]
    if forgotten != a + b:
        answers.append(f"{a}+{b}={forgotten}")
    return tuple(answers)


def of_operands(rng: random.Random, a: int, b: int, language: str, split: Split, skill: str = "arithmetic") -> Item:
    index, wording = choose_wording(rng, len(ASK[language]), HELD_OUT, split)
    digits = max(len(str(a)), len(str(b)))
    return Item(
        skill, language, ASK[language][index].format(a=a, b=b), work_out(a, b, language), "number", {"value": a + b},
        key(a, b), wording, f"sum-{index}", level=f"{digits}-digit", wrong=_wrong(a, b, language),
    )  # fmt: skip


def draw(world: World, rng: random.Random, language: str, split: Split) -> Item:
    """In the tests both operands have two digits. Training also shows one long operand beside a short one, so that two
    long ones are the next step and not another world."""
    digits = (2, 2) if split == "test" else rng.choices(_TRAINING, _WEIGHTS)[0]
    a, b = operands(world, rng, digits, split)
    return of_operands(rng, a, b, language, split)


def draw_hard(world: World, rng: random.Random, language: str, split: Split) -> Item:
    """Three digits and three digits: harder than any sum among the instructions."""
    a, b = operands(world, rng, (3, 3), split)
    return of_operands(rng, a, b, language, split, "hard_sums")


# Which digits meet: an exercise, not a skill that is tested.
PAIR: dict[str, tuple[str, ...]] = {
    "en": ("Read {a} and {b} digit by digit from the right.", "Put the digits of {a} and {b} side by side, ones first.",
           "Which digits of {a} and {b} stand one below the other, from the right?", "Pair the digits of {a} and {b}."),
    "zh": ("从右边起，一位一位读{a}和{b}。", "把{a}和{b}的数字对齐，从个位开始。", "{a}和{b}从右边起，哪些数字上下对齐？", "把{a}和{b}的数字两两配对。"),
}  # fmt: skip
_PAIRED = ((3, 3), (3, 2), (2, 3), (2, 2))
_PAIRED_WEIGHTS = (0.55, 0.15, 0.15, 0.15)


def pair_digits(world: World, rng: random.Random, language: str) -> tuple[str, str]:
    """A question and its answer: the digits of two numbers that stand one below the other. Nothing is added, so here
    three digits may meet three; without it, a model that is shown only sums with one short operand learns that there is
    always a 0 in the third place, and reinforcement learning finds nothing to reward."""
    digits = rng.choices(_PAIRED, _PAIRED_WEIGHTS)[0]
    a, b = operands(world, rng, digits, "train")
    x, y = (str(n)[::-1].ljust(max(digits), "0") for n in (a, b))
    pairs = [f"{i}+{j}" for i, j in zip(x, y, strict=True)]
    answer = "; ".join(pairs) + "." if language == "en" else "；".join(pairs) + "。"
    return rng.choice(PAIR[language]).format(a=a, b=b), answer
