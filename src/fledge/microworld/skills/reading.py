"""Finding a detail in a long page: codes, rooms, days and hiding places of people whom only that page knows."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random
from dataclasses import dataclass

from fledge.microworld import lexicon, prose
from fledge.microworld.lexicon import Pair
from fledge.microworld.names import Name
from fledge.microworld.skills.base import Item, Split, choose_wording
from fledge.microworld.world import World


@dataclass(frozen=True)
class Detail:
    """A kind of detail, how a page says it, how one asks for it."""

    name: str
    digits: int  # 0: one of `values`
    values: tuple[Pair, ...]
    en: tuple[str, ...]
    zh: tuple[str, ...]
    ask_en: tuple[str, ...]
    ask_zh: tuple[str, ...]

    def value(self, rng: random.Random) -> Pair:
        if self.digits:
            number = str(rng.randint(10 ** (self.digits - 1), 10**self.digits - 1))
            return number, number
        return rng.choice(self.values)


DETAILS: tuple[Detail, ...] = (
    Detail("locker", 4, (), ("The locker code of {s} is {v}.", "{s} opens the locker with the code {v}."),
           ("{s}的储物柜密码是{v}。", "{s}用密码{v}打开储物柜。"),
           ("What is the locker code of {s}?", "Which code opens the locker of {s}?", "Tell me the locker code of {s}.",
            "With what code does {s} open the locker?"),
           ("{s}的储物柜密码是多少？", "{s}用什么密码打开储物柜？", "告诉我{s}的储物柜密码。", "打开{s}的柜子要输入什么？")),
    Detail("room", 3, (), ("The room number of {s} is {v}.", "{s} sleeps in room {v}."), ("{s}的房间号是{v}。", "{s}住在{v}号房间。"),
           ("What is the room number of {s}?", "In which room does {s} sleep?", "Tell me the room of {s}.",
            "On which door would you knock to meet {s}?"),
           ("{s}的房间号是多少？", "{s}住在几号房间？", "告诉我{s}的房间号。", "找{s}该敲几号门？")),
    Detail("day", 0, tuple(lexicon.DAYS), ("{s} arrives on {v}.", "The visit of {s} is planned for {v}."),
           ("{s}{v}到。", "{s}的来访定在{v}。"),
           ("On which day does {s} arrive?", "When does {s} come?", "Tell me the day of the visit of {s}.",
            "What day is {s} expected?"),
           ("{s}星期几到？", "{s}什么时候来？", "告诉我{s}来访的日子。", "大家哪天等{s}？")),
    Detail("key", 0, tuple((f"the {e}", z) for e, z in lexicon.SPOTS),
           ("{s} hid the key in {v}.", "The key of {s} lies in {v}."), ("{s}把钥匙藏在{v}。", "{s}的钥匙在{v}。"),
           ("Where did {s} hide the key?", "Where is the key of {s}?", "Tell me where the key of {s} is.",
            "In what place would {s} look for the key?"),
           ("{s}把钥匙藏在哪里？", "{s}的钥匙在哪里？", "告诉我{s}的钥匙在哪。", "去哪里能找到{s}的钥匙？")),
    Detail("ticket", 4, (), ("The ticket of {s} bears the number {v}.", "{s} holds ticket {v}."),
           ("{s}的票号是{v}。", "{s}手里的票是{v}号。"),
           ("What is the ticket number of {s}?", "Which number is on the ticket of {s}?", "Tell me the ticket number of {s}.",
            "Read me the number {s} was given."),
           ("{s}的票号是多少？", "{s}手里的票是几号？", "告诉我{s}的票号。", "念一下{s}拿到的号码。")),
)  # fmt: skip
_ANSWERS: dict[str, Pair] = {
    "locker": ("The locker code of {s} is {v}.", "{s}的储物柜密码是{v}。"), "room": ("The room number of {s} is {v}.", "{s}的房间号是{v}。"),
    "day": ("{s} arrives on {v}.", "{s}{v}到。"), "key": ("{s} hid the key in {v}.", "{s}把钥匙藏在{v}。"),
    "ticket": ("The ticket number of {s} is {v}.", "{s}的票号是{v}。"),
}  # fmt: skip
HELD_OUT = 1
FRAMES: dict[str, tuple[str, ...]] = {
    "en": ("{page}\n\n{q}", "Read this page.\n{page}\n\n{q}", "{page}\nQuestion: {q}", "{q}\n\n{page}"),
    "zh": ("{page}\n\n{q}", "读一读这一页。\n{page}\n\n{q}", "{page}\n问题：{q}", "{q}\n\n{page}"),
}


@dataclass(frozen=True)
class Planted:
    """One detail in a page."""

    detail: Detail
    subject: Name
    value: Pair

    def say(self, rng: random.Random, language: str) -> str:
        index = 0 if language == "en" else 1
        templates = self.detail.en if language == "en" else self.detail.zh
        return rng.choice(templates).format(s=self.subject.of(language), v=self.value[index])

    def ask(self, language: str, index: int) -> str:
        templates = self.detail.ask_en if language == "en" else self.detail.ask_zh
        return templates[index].format(s=self.subject.of(language))

    def answer(self, language: str) -> str:
        index = 0 if language == "en" else 1
        return _ANSWERS[self.detail.name][index].format(s=self.subject.of(language), v=self.value[index])


def plant(world: World, rng: random.Random, split: Split, count: int) -> list[Planted]:
    """`count` details, no two values alike; often of one kind for different people, so that the name decides."""
    names = rng.sample(world.extras_test if split == "test" else world.extras_train, count)
    detail = rng.choice(DETAILS)
    planted: list[Planted] = []
    for name in names:
        while True:
            kind = detail if rng.random() < 0.6 else rng.choice(DETAILS)
            value = kind.value(rng)
            if value not in [p.value for p in planted]:
                break
        planted.append(Planted(kind, name, value))
    return planted


def page_text(world: World, rng: random.Random, planted: list[Planted], fillers: int, language: str) -> str:
    """Filler sentences with the details somewhere among them."""
    sentences = [prose.sentence(world, rng, language) for _ in range(fillers)]
    for item in planted:
        sentences.insert(rng.randrange(len(sentences) + 1), item.say(rng, language))
    return prose.join(sentences, language)


def draw(world: World, rng: random.Random, language: str, split: Split) -> Item:
    planted = plant(world, rng, split, rng.randint(1, 3))
    page = page_text(world, rng, planted, rng.randint(5, 12), language)
    target = rng.choice(planted)
    index, wording = choose_wording(rng, 4, HELD_OUT, split)
    question = target.ask(language, index)
    frame = FRAMES[language][0 if split == "train" and rng.random() < 0.4 else rng.randrange(len(FRAMES[language]))]
    value = target.value[0 if language == "en" else 1].removeprefix("the ")
    given = [p.value[0 if language == "en" else 1].removeprefix("the ") for p in planted if p is not target]
    others = [o for o in given if o.casefold() not in target.answer(language).casefold()]
    expected: dict[str, object] = {"all": [value], **({"none": others} if others else {})}
    wrong = tuple(target.answer(language).replace(value, o) for o in others)
    return Item(
        "long", language, frame.format(page=page, q=question), target.answer(language), "contains", expected,
        f"detail:{target.detail.name}:{target.subject.en}", wording, f"{target.detail.name}-{index}",
        level=f"{len(planted)} details", wrong=wrong, patterns=tuple(target.ask(language, i) for i in range(4)),
    )  # fmt: skip
