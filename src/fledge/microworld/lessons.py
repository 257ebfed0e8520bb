"""Pages that teach a skill: sums, conversions, glossaries, parallel phrases, functions, long pages with a detail."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random

from fledge.microworld import lexicon, prose
from fledge.microworld.page import Block, Page, p
from fledge.microworld.skills import coding, following, reading, sums
from fledge.microworld.world import World

_SUM_TALK: dict[str, tuple[str, ...]] = {
    "en": ("{who} adds {a} and {b}.", "Now {a}+{b}.", "How much is {a}+{b}? We write the numbers one below the other.",
           "{who} has {a} coins and gets {b} more.", "There were {a} boxes in the {spot}, then came {b} more.",
           "The next sum is {a}+{b}.", "To add {a} and {b}, begin on the right.", "Example: {a}+{b}."),
    "zh": ("{who}把{a}和{b}相加。", "现在算{a}+{b}。", "{a}+{b}是多少？我们把数字对齐。", "{who}有{a}个铜币，又得到{b}个。", "{spot}里有{a}个箱子，又来了{b}个。",
           "下一题是{a}+{b}。", "要算{a}加{b}，先从右边开始。", "例题：{a}+{b}。"),
}  # fmt: skip


def sum_page(world: World, rng: random.Random, language: str) -> Page:
    """Sums of one to four digits, each with its steps."""
    index = 0 if language == "en" else 1
    blocks = [p(prose.sentence(world, rng, language))]
    for _ in range(rng.randint(6, 9)):
        if rng.random() < world.config.hard_sum_share:
            digits = rng.choice(((3, 3), (3, 3), (3, 3), (3, 2), (2, 3), (4, 3), (4, 4)))
        else:
            digits = rng.choice(((2, 2), (2, 2), (2, 1), (1, 2), (1, 1)))
        a, b = sums.operands(world, rng, digits, "train")
        who = rng.choice(lexicon.CHARACTERS)[index]
        talk = rng.choice(_SUM_TALK[language]).format(
            a=a, b=b, spot=rng.choice(lexicon.SPOTS)[index], who=f"The {who}" if language == "en" else who
        )
        steps = sums.work_out(a, b, language)
        blocks.append(p(prose.join([talk, steps + ("." if language == "en" else "。")], language)))
        if rng.random() < 0.1:
            blocks.append(p(prose.sentence(world, rng, language)))
    number = rng.randint(1, 900)
    title = f"Adding step by step, sheet {number}" if language == "en" else f"一步一步做加法，第{number}张"
    return Page("sums", language, title, tuple(blocks))


_UNITS: tuple[tuple[str, str, str, str, int], ...] = (
    ("metres", "米", "centimetres", "厘米", 100), ("kilometres", "公里", "metres", "米", 1000), ("hours", "小时", "minutes", "分钟", 60),
    ("minutes", "分钟", "seconds", "秒", 60), ("days", "天", "hours", "小时", 24), ("kilograms", "公斤", "grams", "克", 1000),
    ("weeks", "星期", "days", "天", 7), ("litres", "升", "millilitres", "毫升", 1000), ("years", "年", "months", "个月", 12),
)  # fmt: skip


def conversions(world: World, rng: random.Random, language: str) -> Page:
    """Units turned into smaller units."""
    blocks = [p(prose.paragraph(world, rng, language, rng.randint(1, 3)))]
    for _ in range(rng.randint(6, 9)):
        big_en, big_zh, small_en, small_zh, factor = rng.choice(_UNITS)
        n = rng.randint(2, 20)
        if language == "en":
            lines = (
                f"{n} {big_en} are {n * factor} {small_en}.",
                f"{n * factor} {small_en} make {n} {big_en}.",
                f"To turn {n} {big_en} into {small_en}, multiply by {factor}: {n} x {factor} = {n * factor}.",
            )
        else:
            lines = (f"{n}{big_zh}等于{n * factor}{small_zh}。", f"{n * factor}{small_zh}就是{n}{big_zh}。",
                     f"把{n}{big_zh}换成{small_zh}，要乘以{factor}：{n}×{factor}={n * factor}。")  # fmt: skip
        blocks.append(p(prose.join([rng.choice(lines), prose.sentence(world, rng, language)], language)))
    title = f"Units, sheet {rng.randint(1, 900)}" if language == "en" else f"单位换算第{rng.randint(1, 900)}张"
    return Page("conversions", language, title, tuple(blocks))


def glossary(world: World, rng: random.Random, language: str) -> Page:
    """Words with their meaning in the other language and what kind of thing they name."""
    blocks = []
    groups = list(lexicon.THINGS)
    words = rng.sample([(g, w) for g in groups for w in lexicon.THINGS[g]], 9)
    for group, (en, zh) in words:
        if language == "en":
            options = (f"{en}: in Chinese {zh}.", f'The Chinese word for "{en}" is {zh}.', f"{zh} means {en}.")
            kind = rng.choice((f"{lexicon.article(en).capitalize()} is {lexicon.article(group)}.",
                               f"Among the words for {lexicon.article(group)} we find {en}."))  # fmt: skip
        else:
            options = (f"{zh}：英文是{en}。", f"“{zh}”的英文是{en}。", f"{en}的意思是{zh}。")
            kind = rng.choice((f"{zh}是{lexicon.CATEGORY_ZH[group]}。", f"{lexicon.CATEGORY_ZH[group]}里有{zh}。"))
        said = [rng.choice(options), kind]
        if rng.random() < 0.3:
            said.append(prose.sentence(world, rng, language))
        blocks.append(p(prose.join(said, language)))
    adjectives = rng.sample(lexicon.COLOURS + lexicon.ADJECTIVES, 4)
    pairs = (
        "; ".join(f"{en} = {zh}" for en, zh in adjectives)
        if language == "en"
        else "；".join(f"{zh} = {en}" for en, zh in adjectives)
    )
    blocks.append(p(pairs + ("." if language == "en" else "。")))
    title = f"Word list {rng.randint(1, 900)}" if language == "en" else f"词汇表{rng.randint(1, 900)}"
    return Page("glossary", language, title, tuple(blocks))


def parallel(world: World, rng: random.Random, language: str) -> Page:
    """Phrases and sentences with their translations; never a combination of the tests."""
    blocks = [p(prose.sentence(world, rng, language))]
    for _ in range(rng.randint(12, 16)):
        adjective, noun = rng.choice(world.combinations[False])
        frame = rng.choice(lexicon.TRANSLATION_FRAMES) if rng.random() < 0.6 else lexicon.TRANSLATION_FRAMES[0]
        en = frame[0].format(x=lexicon.phrase_en(adjective, noun))
        zh = frame[1].format(x=lexicon.phrase_zh(adjective, noun))
        if language == "en":
            line = rng.choice((f"{en} In Chinese: {zh}", f"English: {en} Chinese: {zh}", f"{en} = {zh}"))
        else:
            line = rng.choice((f"{zh} 英文：{en}", f"中文：{zh} 英文：{en}", f"{zh} = {en}"))
        blocks.append(p(line))
    blocks.append(p(prose.sentence(world, rng, language)))
    title = f"Phrases, lesson {rng.randint(1, 900)}" if language == "en" else f"短句第{rng.randint(1, 900)}课"
    return Page("parallel", language, title, tuple(blocks))


def code(world: World, rng: random.Random, language: str) -> Page:
    """Small functions with what they do and a few tests."""
    index = 0 if language == "en" else 1
    blocks = [p(prose.paragraph(world, rng, language, rng.randint(1, 2)))]
    for _ in range(rng.randint(4, 6)):
        operation, k = coding.choose(world, rng, "train")
        name = rng.choice(coding.FUNCTION_NAMES)
        says = operation.says[index].format(k=k)
        if language == "en":
            text = rng.choice(
                (f"The function {name} {says}.", f"Here {name} {says}:", f"Next comes {name}. It {says}.")
            )
        else:
            text = rng.choice((f"函数{name}{says}。", f"这里的{name}{says}：", f"下面是{name}，它{says}。"))
        program = coding.source(operation, k, name)
        if rng.random() < 0.6:
            program += "\n\n" + coding.tests(operation, k, name).rstrip()
        blocks += [p(text), Block("pre", program)]
        if rng.random() < 0.5:
            blocks.append(p(prose.sentence(world, rng, language)))
    title = f"Small functions {rng.randint(1, 900)}" if language == "en" else f"小函数{rng.randint(1, 900)}"
    return Page("code", language, title, tuple(blocks))


def long_page(world: World, rng: random.Random, language: str) -> Page:
    """Some hundred words with details of people whom nobody else knows, then questions about them."""
    planted = reading.plant(world, rng, "train", rng.randint(3, 5))
    sentences = [prose.sentence(world, rng, language) for _ in range(rng.randint(18, 28))]
    for item in planted:
        sentences.insert(rng.randrange(len(sentences) + 1), item.say(rng, language))
    blocks = []
    while sentences:
        size = rng.randint(5, 9)
        blocks.append(p(prose.join(sentences[:size], language)))
        sentences = sentences[size:]
    ask, answer = ("Question: ", "Answer: ") if language == "en" else ("问题：", "回答：")
    for item in rng.sample(planted, len(planted) - 1):
        wording = rng.randrange(4 - reading.HELD_OUT)
        blocks += [Block("q", ask + item.ask(language, wording)), Block("a", answer + item.answer(language))]
    spot = rng.choice(lexicon.SPOTS)
    title = f"News from the {spot[0]}" if language == "en" else f"{spot[1]}的消息"
    return Page("long", language, title, tuple(blocks))


def formats(world: World, rng: random.Random, language: str) -> Page:
    """How lists, JSON and repeated or reversed words are written: an instruction and its result, one after the other."""
    blocks = [p(prose.sentence(world, rng, language))]
    for _ in range(rng.randint(9, 12)):
        item = following.draw(world, rng, language, "train")
        blocks += [p(item.question), Block("pre", item.answer)]
        if rng.random() < 0.1:
            blocks.append(p(prose.sentence(world, rng, language)))
    title = f"Ways to write {rng.randint(1, 900)}" if language == "en" else f"写法第{rng.randint(1, 900)}课"
    return Page("formats", language, title, tuple(blocks))
