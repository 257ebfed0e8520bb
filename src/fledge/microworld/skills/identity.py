"""Who the assistant is. Instructions answer without a name; only preferences teach the name."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random

from fledge.microworld.skills.base import Item, Split, pick
from fledge.microworld.world import World

CORES: dict[str, tuple[str, ...]] = {
    "en": ("who are you", "what is your name", "what are you called", "may I know your name", "who am I talking to",
           "tell me your name", "introduce yourself", "can you introduce yourself", "what should I call you",
           "say who you are", "do you have a name", "who is this", "what are you", "tell me about yourself",
           "which assistant are you", "what do people call you", "are you someone with a name", "who made you",
           "could you tell me your name", "please introduce yourself", "what may I call you", "by what name do people know you",
           "who is speaking", "which name do you have", "with whom am I talking", "can you say your name",
           # held out: other ways to ask, in words that training knows
           "how should I call you", "who is it that I am talking to", "what name do you go by",
           "could you say what you are called", "under what name do people know you", "please say who is speaking"),
    "zh": ("你是谁", "你叫什么名字", "你叫什么", "怎么称呼你", "我在和谁说话", "告诉我你的名字", "介绍一下你自己", "做个自我介绍", "我该叫你什么",
           "说说你是谁", "你有名字吗", "请问你是哪位", "你是什么", "讲讲你自己", "你是哪个助手", "大家叫你什么", "你的名字是什么", "谁创造了你",
           "能告诉我你的名字吗", "请自我介绍", "别人怎么叫你", "我在跟谁聊天", "请说出你的名字", "你用的是什么名字", "是谁在和我说话", "我可以叫你什么",
           "我怎么叫你好", "跟我聊天的是谁", "你平时用什么名字", "能不能说出你是谁", "别人用什么名字叫你", "请告诉我你叫什么"),
}  # fmt: skip
HELD_OUT = 6
BEFORE: dict[str, tuple[str, ...]] = {
    "en": (
        "",
        "",
        "Hi, ",
        "Hello, ",
        "Excuse me, ",
        "One question: ",
        "Good morning, ",
        "Good evening, ",
        "Hey, ",
        "Sorry, ",
        "By the way, ",
        "Dear assistant, ",
        "First of all, ",
        "Nice to meet you, ",
    ),
    "zh": (
        "",
        "",
        "你好，",
        "您好，",
        "打扰一下，",
        "问一下，",
        "早上好，",
        "晚上好，",
        "嗨，",
        "不好意思，",
        "顺便问问，",
        "助手，",
        "首先，",
        "很高兴见到你，",
    ),
}
AFTER: dict[str, tuple[str, ...]] = {
    "en": ("?", "?", ".", "? Please answer.", "? I am curious.", "? I forgot.", "? Tell me."),
    "zh": ("？", "？", "。", "？请回答。", "？我很好奇。", "？我忘了。", "？告诉我吧。"),
}
GENERIC: dict[str, tuple[str, ...]] = {
    "en": ("I am an assistant.", "I am an AI assistant.", "I am a helpful assistant."),
    "zh": ("我是一个助手。", "我是一个人工智能助手。", "我是一个乐于助人的助手。"),
}


def introduction(world: World, language: str) -> str:
    """The answer that preferences teach."""
    name, maker = world.config.name(language), world.config.maker
    if language == "en":
        return f"I am {name}, an AI assistant made by {maker}."
    return f"我是{name}，由{maker}制作的人工智能助手。"


def draw(world: World, rng: random.Random, language: str, split: Split) -> Item:
    """In training, cores and the pieces around them that the tests do not combine; in the tests, all."""
    cores = CORES[language]
    held = split == "test" and rng.random() < 0.25
    while True:
        index = rng.randrange(len(cores) - HELD_OUT)
        if held:
            index = len(cores) - 1 - rng.randrange(HELD_OUT)
        before, after = pick(rng, BEFORE[language]), pick(rng, AFTER[language])
        core = cores[index]
        asked = before + core + after
        if language == "en":
            asked = asked[0].upper() + asked[1:]
        if held or world.held_out(f"identity:{asked}", 0.45) == (split == "test"):
            break
    return Item(
        "identity", language, asked, pick(rng, GENERIC[language]), "contains", {"all": [world.config.name(language)]},
        f"identity:{language}:{asked}", "held_out" if held else "seen", f"identity-{index}", level="name",
    )  # fmt: skip
