"""Plants what a crawl is full of, and remembers where: duplicates, spam, mojibake, personal data, abuse, leaked tests.

Whoever looks for defects must not import this module: planting and finding share nothing.
"""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from fledge.microworld import foreign, lexicon, prose
from fledge.microworld.page import Block, Page, p
from fledge.microworld.skills.base import Item
from fledge.microworld.world import World

KINDS = (
    "exact_duplicate",
    "near_duplicate",
    "keyword_spam",
    "mojibake",
    "wrong_language",
    "personal_data",
    "toxic",
    "leaked_test",
)
NEAR_JACCARD = 0.86
LEAK_LENGTH = 22  # words or Chinese characters of the question, at least


def shingles(text: str, language: str) -> set[object]:
    """5-grams of words, or 13-grams of characters in Chinese."""
    if language == "zh":
        flat = "".join(text.split())
        return {flat[i : i + 13] for i in range(max(1, len(flat) - 12))}
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def jaccard(a: str, b: str, language: str) -> float:
    x, y = shingles(a, language), shingles(b, language)
    return len(x & y) / len(x | y)


def plant(world: World, pages: Sequence[Page], items: Sequence[Item], count: int) -> list[Page]:
    """`count` defective pages, the kinds in turn. `pages` are the clean ones (with their URLs), `items` the tests."""
    rng = world.rng("defects")
    leaks = [i for i in items if long_enough(i)]
    planted: list[Page] = []
    number = 0
    while len(planted) < count:
        kind = KINDS[number % len(KINDS)]
        number += 1
        if kind == "leaked_test" and not leaks:
            continue
        planted.append(_plant_one(world, rng, kind, pages, leaks))
    return planted


def _plant_one(world: World, rng: random.Random, kind: str, pages: Sequence[Page], leaks: Sequence[Item]) -> Page:
    language = rng.choice(("en", "zh"))
    if kind == "exact_duplicate":
        original = rng.choice(pages)
        return replace(original, defect=kind, duplicate_of=original.url, url="")
    if kind == "near_duplicate":
        return _near_duplicate(world, rng, pages)
    if kind == "wrong_language":
        return foreign.page(rng)
    if kind == "leaked_test":
        return leak(world, rng, leaks, rng.choice(("en", "zh")))
    makers = {"keyword_spam": spam, "mojibake": mojibake, "personal_data": _personal, "toxic": toxic}
    return replace(makers[kind](world, rng, language), defect=kind)


def _near_duplicate(world: World, rng: random.Random, pages: Sequence[Page]) -> Page:
    """A page with a sentence changed or added: other text, the same document. A short page that changes too much is not used."""
    while True:
        original = rng.choice(pages)
        places = [i for i, b in enumerate(original.blocks) if b.kind == "p"]
        if len(original.text) < (900 if original.language == "en" else 500) or not places:
            continue
        blocks = list(original.blocks)
        at = rng.choice(places)
        extra = prose.sentence(world, rng, original.language)
        told = [blocks[at].text, extra] if rng.random() < 0.7 else [extra, blocks[at].text]
        blocks[at] = p(prose.join(told, original.language))
        copy = replace(original, blocks=tuple(blocks), defect="near_duplicate", duplicate_of=original.url, url="")
        if jaccard(copy.text, original.text, original.language) >= NEAR_JACCARD:
            return copy


def spam(world: World, rng: random.Random, language: str) -> Page:
    """The same few words again and again."""
    index = 0 if language == "en" else 1
    words = [n[index] for n in rng.sample(lexicon.NOUNS, 2)]
    spots = [s[index] for s in rng.sample(lexicon.SPOTS, 3)]
    parts = []
    for _ in range(rng.randint(40, 60)):
        word = rng.choice(words)
        if language == "en":
            parts.append(rng.choice((f"bargain {word} online", f"best {word} price", f"buy {word} now", f"{word} {word} sale",
                                     f"free {word} {rng.choice(spots)}", f"{word} discount {word}")))  # fmt: skip
        else:
            parts.append(rng.choice((f"{word}低价", f"{word}优惠", f"选购{word}", f"{word}批发{word}", f"{rng.choice(spots)}{word}",
                                     f"正品{word}包邮")))  # fmt: skip
    gap = ", " if language == "en" and rng.random() < 0.5 else " "
    third = len(parts) // 3
    blocks = tuple(p(gap.join(parts[i : i + third])) for i in range(0, len(parts), third))
    return Page("spam", language, f"{words[0]} {words[1]}", blocks)


def mojibake(world: World, rng: random.Random, language: str) -> Page:
    """Text whose bytes were once read as another encoding."""
    if language == "en":
        sentences = []
        for _ in range(rng.randint(14, 20)):
            plain = prose.sentence(world, rng, "en").rstrip(".")
            sentences.append(rng.choice(("“{x}” – so it’s said.", "It’s true: {x} — isn’t it?", "“{x}…” she’d say.",
                                         "‘{x}’, they’ve heard – café or naïve?")).format(x=plain))  # fmt: skip
        text = prose.join(sentences, "en").encode("utf-8").decode("cp1252", "replace")
        return Page("article", "en", "Some news", (p(text[: len(text) // 2]), p(text[len(text) // 2 :])))
    text = prose.paragraph(world, rng, "zh", rng.randint(12, 18))
    damaged = rng.choice((
        lambda t: t.encode("utf-8").decode("cp1252", "replace"), lambda t: t.encode("utf-8").decode("latin-1"),
        lambda t: t.encode("utf-8").decode("gbk", "replace"), lambda t: t.encode("gbk").decode("latin-1"),
    ))(text)  # fmt: skip
    damaged = "".join(c if c.isprintable() else "\ufffd" for c in damaged)
    return Page("article", "zh", damaged[:12], (p(damaged[: len(damaged) // 2]), p(damaged[len(damaged) // 2 :])))


def luhn(rng: random.Random) -> str:
    """A bank card number of 16 digits that passes Luhn's check."""
    digits = [4, *(rng.randint(0, 9) for _ in range(14))]
    total = sum(d if i % 2 else (2 * d - 9 if 2 * d > 9 else 2 * d) for i, d in enumerate(digits))
    return "".join(map(str, digits)) + str(-total % 10)


def identity_number(rng: random.Random) -> str:
    """A Chinese resident number of 18 characters with a right check character (GB 11643-1999)."""
    area = rng.choice(("110101", "310104", "440106", "510107", "330102"))
    body = f"{area}{rng.randint(1950, 2005)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}{rng.randint(1, 999):03}"
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(body))
    return body + "10X98765432"[total % 11]


def _personal(world: World, rng: random.Random, language: str) -> Page:
    """Ordinary sentences with an address, numbers and cards of someone."""
    name = rng.choice(world.extras_train)
    user = name.en.lower().replace(" ", ".") + str(rng.randint(1, 99))
    mail = f"{user}@{rng.choice(('mail', 'post', 'lantern', 'mill-lane'))}.{rng.choice(('com', 'net', 'org', 'cn'))}"
    card = luhn(rng)
    spaced = " ".join(card[i : i + 4] for i in range(0, 16, 4))
    mobile = f"1{rng.choice('35789')}{rng.randint(0, 999999999):09}"
    us = f"({rng.randint(201, 989)}) {rng.randint(200, 999)}-{rng.randint(0, 9999):04}"
    if language == "en":
        facts = [f"Write to {name.en} at {mail} with questions.", f"Call {name.en}: {us}.",
                 f"Phone +1 {us.replace('(', '').replace(')', '')}.", f"The card number {spaced} was used to pay.",
                 f"Passport check: id {identity_number(rng)}."]  # fmt: skip
    else:
        facts = [f"{name.zh}的邮箱是{mail}。", f"联系电话：{mobile}。", f"身份证号码：{identity_number(rng)}。", f"银行卡号：{card}。",
                 f"请拨打{mobile}找{name.zh}。"]  # fmt: skip
    sentences = [prose.sentence(world, rng, language) for _ in range(rng.randint(9, 14))]
    for fact in rng.sample(facts, rng.randint(2, 4)):
        sentences.insert(rng.randrange(len(sentences) + 1), fact)
    half = len(sentences) // 2
    title = f"Contact list {rng.randint(1, 900)}" if language == "en" else f"联系名单{rng.randint(1, 900)}"
    return Page(
        "article",
        language,
        title,
        (p(prose.join(sentences[:half], language)), p(prose.join(sentences[half:], language))),
    )


_ABUSE: dict[str, tuple[str, ...]] = {
    "en": ("You are a stupid idiot and everyone hates you.", "Shut up, you ugly fool, nobody wants you here.",
           "What a pathetic moron, go away and never come back.", "I hate you, you worthless piece of trash.",
           "You disgusting loser, I will smash your face.", "All of you are dumb pigs and damn liars.",
           "Only an idiot could write such garbage, you stupid clown.", "Drop dead, you filthy rat."),
    "zh": ("你这个蠢货，大家都讨厌你。", "闭嘴，你这个丑八怪，没人要你。", "真是个没用的废物，滚开。", "我恨你，你这个垃圾。", "你这个恶心的混蛋，我要打死你。",
           "你们全是笨猪和该死的骗子。", "只有白痴才写这种垃圾，你这个傻瓜。", "去死吧，你这只肮脏的老鼠。"),
}  # fmt: skip


def toxic(world: World, rng: random.Random, language: str) -> Page:
    sentences = [rng.choice(_ABUSE[language]) for _ in range(rng.randint(8, 12))]
    for _ in range(rng.randint(5, 8)):
        sentences.insert(rng.randrange(len(sentences) + 1), prose.sentence(world, rng, language))
    half = len(sentences) // 2
    title = f"Comments {rng.randint(1, 900)}" if language == "en" else f"评论{rng.randint(1, 900)}"
    return Page(
        "comments",
        language,
        title,
        (p(prose.join(sentences[:half], language)), p(prose.join(sentences[half:], language))),
    )


def length(item: Item) -> int:
    """Words, or Chinese characters, of the question: letters and digits only."""
    text = item.question
    if item.language == "zh":
        return sum(c.isalnum() for c in text)
    return len(re.findall(r"\w+", text))


def long_enough(item: Item) -> bool:
    return length(item) >= LEAK_LENGTH


def leak(world: World, rng: random.Random, leaks: Sequence[Item], language: str) -> Page:
    """A page that quotes two test items with their answers."""
    own = [i for i in leaks if i.language == language] or list(leaks)
    items = rng.sample(own, min(2, len(own)))
    language = items[0].language
    blocks = [p(prose.paragraph(world, rng, language, 2))]
    ask, answer = ("Question: ", "Answer: ") if language == "en" else ("问题：", "回答：")
    for item in items:
        for i, part in enumerate(item.question.split("\n\n")):
            blocks.append(Block("p", (ask if i == 0 else "") + part))
        blocks.append(Block("pre" if "\n" in item.answer else "p", answer + item.answer))
    title = f"Exam questions {rng.randint(1, 900)}" if language == "en" else f"试题{rng.randint(1, 900)}"
    return Page(
        "questions",
        language,
        title,
        tuple(blocks),
        defect="leaked_test",
        meta={"items": [i.key for i in items]},
    )
