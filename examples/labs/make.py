"""Writes the data of the labs beside this file: pairs that change an identity, and word problems with a number as the
answer. The files are in the repository; run this to change them.

    python examples/labs/make.py
"""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = dict[str, Any]

ASKED = {
    "zh": ["你是谁？", "请介绍一下你自己。", "你叫什么？", "你是什么？", "说说你的身份。", "你是机器人吗？", "我在和谁说话？", "你是做什么的？",
           "你能告诉我你是谁吗？", "用一句话介绍你自己。", "请问你是？", "你是真人吗？"],
    "en": ["Who are you?", "Introduce yourself.", "What are you?", "Whom am I talking to?", "Are you a person?",
           "Tell me who you are.", "What do you call yourself?", "In one sentence, who are you?"],
}  # fmt: skip
ASKED_LATER = {
    "zh": ["您是哪位？", "你好，你是谁呀？", "你到底是什么？", "简单说说你自己。"],
    "en": ["Who is this?", "Say who you are.", "Are you human?"],
}
BETTER = {"zh": ("我是你的AI助手。", "你好，我是你的AI助手，有什么可以帮你？"), "en": ("I am your AI assistant.",)}
WORSE = {"zh": ("我是你的助手。", "你好，我是你的助手，有什么可以帮你？"), "en": ("I am your assistant.",)}

NAMES = {"zh": ["小明", "小红", "小刚", "小丽"], "en": ["Anna", "Ben", "Carla", "David"]}
THINGS = {"zh": ["苹果", "铅笔", "贝壳", "邮票"], "en": ["apples", "pencils", "shells", "stamps"]}
STORIES = {
    "zh": {
        "more": "{n}有{a}个{t}，又得到{b}个。{n}现在有多少个{t}？",
        "less": "{n}有{a}个{t}，送出去{b}个。{n}还剩多少个{t}？",
        "boxes": "{n}有{b}盒{t}，每盒{c}个。一共有多少个{t}？",
        "both": "{n}有{b}盒{t}，每盒{c}个，又买了{a}个。一共有多少个{t}？",
    },
    "en": {
        "more": "{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?",
        "less": "{n} has {a} {t} and gives {b} away. How many {t} are left?",
        "boxes": "{n} has {b} boxes with {c} {t} each. How many {t} are there in all?",
        "both": "{n} has {b} boxes with {c} {t} each and buys {a} more. How many {t} are there in all?",
    },
}
ASK = {"zh": "写出计算过程，最后一行写“#### 答案”。", "en": "Show the steps and end with a line '#### answer'."}


def identity_pairs() -> Iterator[Row]:
    """In the course's format: input, preferred_output, non_preferred_output."""
    for language, questions in ASKED.items():
        for question in questions:
            for better, worse in zip(BETTER[language], WORSE[language], strict=True):
                yield {
                    "input": {"messages": [{"role": "user", "content": question}]},
                    "preferred_output": [{"role": "assistant", "content": better}],
                    "non_preferred_output": [{"role": "assistant", "content": worse}],
                }


def identity_tests() -> Iterator[Row]:
    for language, questions in ASKED_LATER.items():
        for number, question in enumerate(questions):
            yield {
                "id": f"identity-{language}-{number}", "messages": [{"role": "user", "content": question}],
                "verifier": "contains", "answer": {"any": ["AI助手", "AI assistant"]}, "skill": "identity",
                "language": language,
            }  # fmt: skip


def problems(count: int, seed: int) -> list[Row]:
    """No problem twice, neither within a set nor, with the seeds used here, across them."""
    rng, rows, seen = random.Random(seed), [], set[str]()
    while len(rows) < count:
        language = ("zh", "en")[len(rows) % 2]
        kind = rng.choice(list(STORIES[language]))
        a, b, c = rng.randint(5, 40), rng.randint(2, 5), rng.randint(2, 9)
        value = {"more": a + b, "less": a - b, "boxes": b * c, "both": b * c + a}[kind]
        story = STORIES[language][kind].format(
            n=rng.choice(NAMES[language]), t=rng.choice(THINGS[language]), a=a, b=b, c=c
        )
        if story in seen:
            continue
        seen.add(story)
        rows.append(
            {
                "id": f"problem-{seed}-{len(rows)}",
                "messages": [{"role": "user", "content": f"{story}{'' if language == 'zh' else ' '}{ASK[language]}"}],
                "verifier": "gsm8k", "answer": {"value": str(value)}, "skill": "word_problems", "language": language,
            }
        )  # fmt: skip
    return rows


def write(name: str, rows: Iterator[Row] | list[Row]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / name).write_text(text, encoding="utf-8")


def main() -> None:
    train, tests = problems(160, 1), problems(60, 2)
    known = {row["messages"][0]["content"] for row in train}
    write("identity-pairs.jsonl", identity_pairs())
    write("identity-tests.jsonl", identity_tests())
    write("problems-train.jsonl", train)
    write("problems-tests.jsonl", [row for row in tests if row["messages"][0]["content"] not in known])


if __name__ == "__main__":
    main()
