"""Short phrases from one language to the other; the language of the question is the language of the phrase."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random

from fledge.microworld import lexicon
from fledge.microworld.skills.base import Item, Split, choose_wording
from fledge.microworld.world import World

ASK: dict[str, tuple[str, ...]] = {
    "en": ("Translate into Chinese: {x}", "What is this in Chinese: {x}", "Say in Chinese: {x}", "Chinese for: {x}",
           'How do you say "{x}" in Chinese?', 'Please translate "{x}" into Chinese.', "English to Chinese: {x}",
           "Put into Chinese: {x}", "Give me the Chinese for this: {x}", 'Turn "{x}" into Chinese.',
           'What do the Chinese say for "{x}"?', "Write this in Chinese characters: {x}"),
    "zh": ("翻译成英文：{x}", "这句用英文怎么说：{x}", "请用英文说：{x}", "英文翻译：{x}", "“{x}”用英文怎么说？", "请把“{x}”翻译成英文。",
           "中译英：{x}", "把它译成英文：{x}", "告诉我这个的英文：{x}", "将“{x}”变成英文。", "英国人怎么说“{x}”？", "用英文字母写出：{x}"),
}  # fmt: skip
HELD_OUT = 3


def draw(world: World, rng: random.Random, language: str, split: Split) -> Item:
    if split == "train" and rng.random() < 0.12:
        noun = rng.choice(lexicon.NOUNS + lexicon.COLOURS)
        return _item(rng, language, split, noun, f"word:{noun[0]}", ())
    adjective, noun = rng.choice(world.combinations[split == "test"])
    phrase = (lexicon.phrase_en(adjective, noun), lexicon.phrase_zh(adjective, noun))
    # half of them the bare phrase, half a short sentence
    index = 0 if rng.random() < 0.4 else rng.randrange(len(lexicon.TRANSLATION_FRAMES))
    frame = lexicon.TRANSLATION_FRAMES[index]
    text = (frame[0].format(x=phrase[0]), frame[1].format(x=phrase[1]))
    return _item(rng, language, split, text, f"phrase:{phrase[0]}", phrase)


def _item(
    rng: random.Random, language: str, split: Split, text: lexicon.Pair, key: str, phrase: tuple[str, ...]
) -> Item:
    index, wording = choose_wording(rng, len(ASK[language]), HELD_OUT, split)
    source, target = text if language == "en" else (text[1], text[0])
    accepted = [target]
    if language == "zh" and target.startswith("the "):
        bare = target.removeprefix("the ")
        accepted += [bare, lexicon.article(bare)]
    if language == "zh":
        accepted += [t.replace(" the ", f" {a} ") for t in (target,) for a in ("a", "an") if " the " in t]
    return Item(
        "translation", language, ASK[language][index].format(x=source), target, "exact", {"texts": accepted}, key, wording,
        f"translation-{index}", level="sentence" if text[0].endswith((".", "?")) else "phrase", patterns=phrase,
        wrong=(source,),
    )  # fmt: skip
