"""Small Python functions, checked by running tests. Tests ask for constants that training never uses with that operation."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random
from dataclasses import dataclass

from fledge.microworld.lexicon import Pair
from fledge.microworld.skills.base import Item, Split, choose_wording
from fledge.microworld.world import World


@dataclass(frozen=True)
class Operation:
    """A family of functions with one constant ``{k}``."""

    name: str
    argument: str
    body: str
    says: Pair
    low: int
    high: int
    samples: tuple[str, ...]  # arguments to test with, as expressions; ``k`` is known there


OPERATIONS: tuple[Operation, ...] = (
    Operation("add", "x", "x + {k}", ("adds {k} to x", "返回x加{k}"), 2, 99, ("0", "5", "31")),
    Operation("subtract", "x", "x - {k}", ("subtracts {k} from x", "返回x减{k}"), 2, 99, ("0", "40", "7")),
    Operation("multiply", "x", "x * {k}", ("multiplies x by {k}", "返回x乘{k}"), 2, 99, ("0", "3", "10")),
    Operation("remainder", "x", "x % {k}", ("returns x modulo {k}", "返回x除以{k}的余数"), 2, 99, ("0", "100", "7")),
    Operation("greater", "x", "x > {k}", ("tells whether x is greater than {k}", "判断x是否大于{k}"), 2, 99,
              ("k", "k + 1", "k * 2", "0")),
    Operation("less", "x", "x < {k}", ("tells whether x is less than {k}", "判断x是否小于{k}"), 2, 99,
              ("k", "k - 1", "200")),
    Operation("equal", "x", "x == {k}", ("tells whether x equals {k}", "判断x是否等于{k}"), 2, 99, ("k", "k + 1", "0")),
    Operation("divides", "x", "x % {k} == 0", ("tells whether {k} divides x", "判断x能否被{k}整除"), 2, 99,
              ("k", "k * 3", "k + 1")),
    Operation("largest", "x", "max(x, {k})", ("returns the larger of x and {k}", "返回x和{k}中较大的"), 2, 99, ("0", "500", "k")),
    Operation("smallest", "x", "min(x, {k})", ("returns the smaller of x and {k}", "返回x和{k}中较小的"), 2, 99,
              ("0", "500", "k")),
    Operation("repeat", "s", "s * {k}", ("repeats the text s {k} times", "把字符串s重复{k}遍"), 2, 40, ("'ab'", "''")),
    Operation("first", "s", "s[:{k}]", ("returns the first {k} letters of s", "返回s的前{k}个字符"), 2, 40,
              ("'abcdefgh' * 9", "'a'")),
    Operation("skip", "s", "s[{k}:]", ("drops the first {k} letters of s", "去掉s的前{k}个字符"), 2, 40, ("'abcdefgh' * 9", "'a'")),
    Operation("count", "items", "items.count({k})", ("counts how often {k} is in items", "数出items里有几个{k}"), 2, 99,
              ("[k, 1, k]", "[]", "[k + 1]")),
    Operation("contains", "items", "{k} in items", ("tells whether {k} is in items", "判断{k}是否在items里"), 2, 99,
              ("[k, k]", "[]", "[k + 1]")),
    Operation("append", "items", "items + [{k}]", ("returns items with {k} at the end", "在items末尾加上{k}"), 2, 99, ("[]", "[1, 2]")),
)  # fmt: skip
FUNCTION_NAMES = ("f", "g", "h", "calc", "work", "solve", "step", "do_it")
HELD_SHARE = 0.25
ASK: dict[str, tuple[str, ...]] = {
    "en": ("Write a Python function {f} that {says}.", "Python: a function {f} that {says}.",
           "Define {f} in Python. It {says}.", "Please write {f}, a Python function that {says}.",
           "I need a Python function {f}. It {says}.", "Code a function {f} that {says}.",
           "Show me Python code for {f}, which {says}.", "Make {f} in Python so that it {says}.",
           "Give me the function {f}; it {says}.", "Can you program {f}? It {says}.",
           "How would you write {f} if it {says}?", "Python task. Name: {f}. It {says}."),
    "zh": ("写一个Python函数{f}，{says}。", "用Python定义函数{f}：{says}。", "请写函数{f}，{says}。", "我需要一个Python函数{f}，{says}。",
           "编写{f}函数，{says}。", "用Python写{f}，要求{says}。", "给我函数{f}的代码：{says}。", "做一个名为{f}的函数，{says}。",
           "Python：函数{f}，{says}。", "你能编出{f}吗？它要{says}。", "Python题：函数名{f}，作用是{says}。", "怎样用代码实现{f}，让它{says}？"),
}  # fmt: skip
HELD_OUT = 3


def source(operation: Operation, k: int, name: str) -> str:
    return f"def {name}({operation.argument}):\n    return {operation.body.format(k=k)}"


def tests(operation: Operation, k: int, name: str) -> str:
    """Assertions whose right sides were computed here, from the operation's own expression."""
    lines = []
    for sample in operation.samples:
        value = eval(sample, {"__builtins__": {}}, {"k": k})
        allowed = {"__builtins__": {}, "max": max, "min": min, "len": len}
        result = eval(operation.body.format(k=k), allowed, {operation.argument: value})
        lines.append(f"assert {name}({value!r}) == {result!r}")
    return "\n".join(lines) + "\n"


def choose(world: World, rng: random.Random, split: Split) -> tuple[Operation, int]:
    while True:
        operation = rng.choice(OPERATIONS)
        k = rng.randint(operation.low, operation.high)
        if world.held_out(f"code:{operation.name}:{k}", HELD_SHARE) == (split == "test"):
            return operation, k


def draw(world: World, rng: random.Random, language: str, split: Split) -> Item:
    operation, k = choose(world, rng, split)
    name = rng.choice(FUNCTION_NAMES)
    index, wording = choose_wording(rng, len(ASK[language]), HELD_OUT, split)
    says = operation.says[0 if language == "en" else 1].format(k=k)
    bad = source(operation, k, name).replace(operation.body.format(k=k), operation.argument)
    return Item(
        "code", language, ASK[language][index].format(f=name, says=says), f"```python\n{source(operation, k, name)}\n```",
        "python_tests", {"entry": name, "tests": tests(operation, k, name)}, f"code:{operation.name}:{k}", wording,
        f"code-{index}", level=operation.name, wrong=(f"```python\n{bad}\n```",),
        patterns=(says + ("." if language == "en" else "。"), says + (":" if language == "en" else "："), f"({operation.argument}):\n    return {operation.body.format(k=k)}\n"),
    )  # fmt: skip
