"""The instructions (sft.jsonl): all skills but hard sums, exercises, small talk, some dialogues of two turns, some system prompts."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random

from fledge.core.records import Conversation, Message
from fledge.microworld import prose
from fledge.microworld.skills.base import Item
from fledge.microworld.skills.sums import pair_digits
from fledge.microworld.skills.table import LANGUAGES, SFT_SHARES, SKILLS
from fledge.microworld.world import World

SYSTEM: dict[str, tuple[str, ...]] = {
    "en": (
        "You are a helpful assistant.",
        "Answer briefly.",
        "You are a friendly assistant who answers in one sentence.",
    ),
    "zh": ("你是一个有用的助手。", "请简短回答。", "你是一个友好的助手，用一句话回答。"),
}
SMALL_TALK: dict[str, tuple[tuple[str, str], ...]] = {
    "en": (("Hello!", "Hello! How can I help you?"), ("Hi", "Hello! How can I help you?"), ("Good morning!", "Good morning! How can I help you?"),
           ("Thank you.", "You are welcome."), ("Thanks a lot!", "You are welcome."), ("Goodbye.", "Goodbye! Come back soon."),
           ("See you tomorrow.", "Goodbye! Come back soon."), ("How are you?", "I am well, thank you."),
           ("What can you do?", "I can add numbers, translate words, write small functions and tell you about this world."),
           ("Help", "Of course. What would you like to know?")),
    "zh": (("你好！", "你好！我能帮你什么？"), ("嗨", "你好！我能帮你什么？"), ("早上好！", "早上好！我能帮你什么？"), ("谢谢。", "不客气。"), ("多谢你！", "不客气。"),
           ("再见。", "再见！欢迎再来。"), ("明天见。", "再见！欢迎再来。"), ("你好吗？", "我很好，谢谢。"),
           ("你会做什么？", "我会做加法、翻译词语、写小函数，还能讲讲这个世界。"), ("帮帮我", "当然。你想知道什么？")),
}  # fmt: skip
ABOUT: dict[str, tuple[str, ...]] = {
    "en": ("Tell me about {s}.", "What do you know about {s}?", "Describe {s}.", "Write some sentences about {s}."),
    "zh": ("介绍一下{s}。", "说说{s}。", "你知道{s}的哪些事？", "写几句关于{s}的话。"),
}
TOLD = 3  # facts in such an account
ACCOUNTS, DIGITS, TALK = 0.09, 0.05, 0.015  # of the instructions
TWO_TURNS, WITH_SYSTEM, GREETED = 0.10, 0.06, 0.02


def write_conversations(world: World, count: int) -> list[Conversation]:
    """`count` conversations, the languages in turn, skills by their shares."""
    rng = world.rng("sft")
    shares = {**SFT_SHARES, "about": ACCOUNTS, "digits": DIGITS, "talk": TALK}
    rows = []
    for i in range(count):
        (skill,) = rng.choices(list(shares), list(shares.values()))
        rows.append(_conversation(world, rng, skill, LANGUAGES[i % 2]))
    return rows


def _conversation(world: World, rng: random.Random, skill: str, language: str) -> Conversation:
    if exercise := EXERCISES.get(skill):
        turns = [exercise(world, rng, language)]
        meta = {"skill": skill, "language": language, "wording": skill, "keys": []}
    else:
        item = SKILLS[skill](world, rng, language, "train")
        turns = [(item.question, item.answer)]
        meta = {"skill": skill, "language": language, "wording": item.wording_id, "keys": [item.key]}
        if skill != "long" and rng.random() < TWO_TURNS:
            more = _another(world, rng, language)
            turns.append((more.question, more.answer))
            meta["keys"] = [item.key, more.key]
        elif rng.random() < GREETED:
            turns.insert(0, rng.choice(SMALL_TALK[language][:3]))
    messages = [Message(role="system", content=rng.choice(SYSTEM[language]))] if rng.random() < WITH_SYSTEM else []
    for question, answer in turns:
        messages += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return Conversation(messages=tuple(messages), meta=meta)


def _small_talk(world: World, rng: random.Random, language: str) -> tuple[str, str]:
    return rng.choice(SMALL_TALK[language])


def _account(world: World, rng: random.Random, language: str) -> tuple[str, str]:
    """Somebody or some place, and a few facts. They are stated, as on the pages, also those that only tests ask for:
    otherwise fine-tuning would let them be forgotten."""
    subject = rng.choice(world.people + world.places)
    facts = rng.sample(world.facts_of[subject], TOLD)
    question = rng.choice(ABOUT[language]).format(s=subject.of(language))
    return question, prose.join([fact.state(language, rng) for fact in facts], language)


def _another(world: World, rng: random.Random, language: str) -> Item:
    """A second question of any short skill."""
    skill = rng.choice([s for s in SFT_SHARES if s not in ("long", "identity")])
    return SKILLS[skill](world, rng, language, "train")


# What is no skill of the tests, and so has no key.
EXERCISES = {"talk": _small_talk, "about": _account, "digits": pair_digits}
