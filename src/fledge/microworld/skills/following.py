"""Following a format: JSON, lists with commas, brackets, bullets, numbered lines, repeating, reversing."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import json
import random

from fledge.microworld import lexicon
from fledge.microworld.skills.base import Item, Split, choose_wording
from fledge.microworld.world import World

WORDS = lexicon.NOUNS[:50]
HELD_SHARE = 0.2
# Of each format, the last two are held out.
ASK: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "json": ("Write as JSON with the keys {k1} and {k2}: {w1}, {w2}", "Make JSON. {k1} is {w1}, {k2} is {w2}.",
                 "Give me JSON where {k1} is {w1} and {k2} is {w2}.", "Turn into JSON: {k1} {w1}, {k2} {w2}",
                 "I need JSON with {k1} {w1} and {k2} {w2}.", "JSON, please: {k1}: {w1}; {k2}: {w2}",
                 "Answer in JSON only: {k1} = {w1}, {k2} = {w2}", "Show as JSON that {k1} is {w1} and {k2} is {w2}."),
        "commas": ("Put commas between these words: {words}", "Separate with commas: {words}",
                   "Write as a list with commas: {words}", "Use commas: {words}", "Make a comma list of: {words}",
                   "A list with commas, please: {words}",
                   "Join these words by commas: {words}", "Put these words in one line with commas: {words}"),
        "bullets": ("Write as a bullet list: {words}", "Put a dash before each word: {words}", "Make bullet points of: {words}",
                    "Bullets, please: {words}", "Make a list with dashes: {words}", "Write each word after a dash: {words}",
                    "One word a line, each with a dash: {words}", "Turn into a bullet list: {words}"),
        "numbered": ("Write as a numbered list: {words}", "Number these words, one a line: {words}",
                     "Make a numbered list of: {words}", "A list with numbers, please: {words}",
                     "Put a number before each word: {words}", "Numbers and words, one a line: {words}",
                     "Give each word a number: {words}", "Turn into a numbered list: {words}"),
        "repeat": ("Say {w1} {n} times.", "Write the word {w1} {n} times.", "Repeat {w1} {n} times.",
                   "{n} times the word {w1}, please.", "Write {w1} {n} times in a row.", "Please say {w1} {n} times over.",
                   "I want to read {w1} {n} times.", "Give me the word {w1}, and that {n} times."),
        "reverse": ("Write in reverse order: {words}", "Turn the order of these words around: {words}",
                    "Backwards, word by word: {words}", "Reverse these words: {words}", "From last to first: {words}",
                    "The other way round: {words}",
                    "Begin with the last word: {words}", "Say these words backwards: {words}"),
    },
    "zh": {
        "json": ("写成JSON，键是{k1}和{k2}：{w1}，{w2}", "做一个JSON：{k1}是{w1}，{k2}是{w2}。", "给我JSON，其中{k1}为{w1}，{k2}为{w2}。",
                 "用JSON表示：{k1}是{w1}，{k2}是{w2}", "请写JSON：{k1}：{w1}，{k2}：{w2}", "要JSON，{k1}为{w1}，{k2}为{w2}。",
                 "只用JSON回答：{k1}={w1}，{k2}={w2}", "把{k1}是{w1}、{k2}是{w2}写成JSON。"),
        "commas": ("用逗号隔开：{words}", "在词语之间加逗号：{words}", "写成逗号列表：{words}", "请用逗号分开：{words}", "逗号列表：{words}",
                   "每两个词之间放一个逗号：{words}",
                   "拿逗号把它们连起来：{words}", "请在这些词中间加逗号：{words}"),
        "brackets": ("每个词加上书名号：{words}", "用书名号括住每个词：{words}", "请给每个词加书名号：{words}", "书名号：{words}",
                     "给它们都加上书名号：{words}", "用书名号写这些词：{words}",
                     "把它们都放进书名号里：{words}", "这些词都要带书名号：{words}"),
        "numbered": ("写成编号列表：{words}", "给这些词编号，一行一个：{words}", "做一个编号列表：{words}", "编号，一行一个：{words}",
                     "请写带编号的列表：{words}", "每行一个词，前面写序号：{words}",
                     "每个词配一个序号：{words}", "请把这些词编上号：{words}"),
        "repeat": ("把{w1}说{n}遍。", "把{w1}写{n}遍。", "重复{w1}{n}次。", "请说{n}遍{w1}。", "{w1}，写{n}次。", "连续写{n}次{w1}。",
                   "我想看到{w1}出现{n}次。", "请把{w1}重复{n}遍。"),
        "reverse": ("倒着写这些词：{words}", "把词的顺序反过来：{words}", "按相反的顺序写：{words}", "反过来写：{words}", "请倒过来写：{words}",
                    "从后往前写：{words}",
                    "从最后一个词开始写：{words}", "把这些词倒过来说：{words}"),
    },
}  # fmt: skip
HELD_OUT = 2
_KEYS = {
    "en": ("name", "item", "gift", "first", "second", "place"),
    "zh": ("名称", "物品", "礼物", "第一", "第二", "地点"),
}


def draw(world: World, rng: random.Random, language: str, split: Split) -> Item:
    kind = rng.choice(list(ASK[language]))
    while True:
        operands = _operands(rng, language, kind)
        if world.held_out(f"format:{kind}:{'|'.join(operands)}", HELD_SHARE) == (split == "test"):
            break
    index, wording = choose_wording(rng, len(ASK[language][kind]), HELD_OUT, split)
    gap = " " if language == "en" else "、" if kind in ("commas",) else " "
    words = gap.join(operands)
    names = {"words": words, "w1": operands[0], "n": operands[-1], "w2": "", "k1": "", "k2": ""}
    if kind == "json":
        names |= {"k1": operands[0], "k2": operands[1], "w1": operands[2], "w2": operands[3]}
    answer, verifier, expected, wrong = _solve(kind, operands, language)
    question = ASK[language][kind][index].format(**names)
    every = tuple(w.format(**names) for w in ASK[language][kind])
    return Item(
        "format", language, question, answer, verifier, expected, f"format:{language}:{kind}:{'|'.join(operands)}", wording,
        f"{kind}-{index}", level=kind, wrong=wrong, patterns=every,
    )  # fmt: skip


def _operands(rng: random.Random, language: str, kind: str) -> list[str]:
    index = 0 if language == "en" else 1
    words = [w[index] for w in rng.sample(WORDS, 3)]
    if kind == "json":
        return [*rng.sample(_KEYS[language], 2), *words[:2]]
    if kind == "repeat":
        return [words[0], str(rng.randint(2, 6))]
    return words


def _solve(kind: str, operands: list[str], language: str) -> tuple[str, str, dict[str, object], tuple[str, ...]]:
    """Answer, verifier, what it expects, and wrong answers."""
    plain = " ".join(operands)
    if kind == "json":
        value = {operands[0]: operands[2], operands[1]: operands[3]}
        return json.dumps(value, ensure_ascii=False), "json", {"value": value}, (
            f"{operands[0]}: {operands[2]}, {operands[1]}: {operands[3]}",
        )  # fmt: skip
    if kind == "commas":
        answer = ", ".join(operands) if language == "en" else "，".join(operands)
        texts = [answer, ",".join(operands), ", ".join(operands)]
    elif kind == "bullets":
        answer = "\n".join(f"- {w}" for w in operands)
        texts = [answer]
    elif kind == "brackets":
        answer = "".join(f"《{w}》" for w in operands)
        texts = [answer, " ".join(f"《{w}》" for w in operands)]
    elif kind == "numbered":
        answer = "\n".join(f"{i}. {w}" for i, w in enumerate(operands, 1))
        texts = [answer]
    elif kind == "repeat":
        answer = " ".join([operands[0]] * int(operands[1]))
        return answer, "exact", {"texts": [answer, answer.replace(" ", ""), answer.replace(" ", ", ")]}, (
            " ".join([operands[0]] * (int(operands[1]) + 1)),
        )  # fmt: skip
    else:
        answer = " ".join(reversed(operands))
        texts = [answer, "、".join(reversed(operands)), ", ".join(reversed(operands))]
    return answer, "exact", {"texts": sorted(set(texts), key=texts.index)}, (plain,)
