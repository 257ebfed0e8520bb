"""Pages about the world: articles, tables, dialogues, questions and answers, the assistant."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random
from collections.abc import Callable

from fledge.microworld import lexicon, prose
from fledge.microworld.facts import LEAD_INS
from fledge.microworld.page import Block, Page, p
from fledge.microworld.skills import recall, safety
from fledge.microworld.world import Fact, World

Maker = Callable[[World, random.Random, str], Page]

TITLES: dict[str, tuple[str, ...]] = {
    "en": ("About {a}", "{a}: a portrait", "What we know of {a}", "{a} and {b}", "Notes on {a}", "Who knows {a}?", "{a}, in short",
           "Meeting {a}", "From the life of {a} and {b}", "A day with {a}"),
    "zh": ("关于{a}", "{a}小传", "我们所知道的{a}", "{a}和{b}", "{a}笔记", "谁认识{a}？", "{a}简介", "遇见{a}", "{a}与{b}的故事", "和{a}在一起的一天"),
}  # fmt: skip


class Dealer:
    """Deals facts from shuffled decks, one after the other, so that none is forgotten."""

    def __init__(self, rng: random.Random, facts: list[Fact]) -> None:
        self.rng, self.facts, self.deck = rng, facts, list[Fact]()

    def deal(self, count: int) -> list[Fact]:
        while len(self.deck) < count:
            fresh = list(self.facts)
            self.rng.shuffle(fresh)
            self.deck = fresh + self.deck
        return [self.deck.pop() for _ in range(count)]


def _statement(fact: Fact, rng: random.Random, language: str) -> str:
    lead = rng.choice(LEAD_INS[language]) if rng.random() < 0.4 else ""
    return lead + fact.state(language, rng)


def article(world: World, rng: random.Random, language: str) -> Page:
    """Two or three people or places with all their facts, among ordinary sentences."""
    subjects = rng.sample(world.people if rng.random() < 0.62 else world.places, rng.randint(2, 3))
    blocks: list[Block] = []
    for subject in subjects:
        facts = list(world.facts_of[subject])
        facts += rng.sample(facts, rng.randint(2, 4))  # some are told twice, in other words
        rng.shuffle(facts)
        sentences = [_statement(f, rng, language) for f in facts]
        for _ in range(rng.randint(2, 5)):
            sentences.insert(rng.randrange(len(sentences) + 1), prose.sentence(world, rng, language))
        half = rng.randint(3, len(sentences) - 2)
        if rng.random() < 0.3:
            blocks.append(Block("h2", subject.of(language)))
        blocks += [p(prose.join(part, language)) for part in (sentences[:half], sentences[half:])]
    title = rng.choice(TITLES[language]).format(a=subjects[0].of(language), b=subjects[1].of(language))
    return Page("article", language, title, tuple(blocks))


def roundup(world: World, rng: random.Random, language: str) -> Page:
    """Facts about many subjects, in the order of a notice board."""
    facts = _dealer(world).deal(rng.randint(12, 18))
    blocks = []
    while facts:
        part, facts = facts[:3], facts[3:]
        sentences = [_statement(f, rng, language) for f in part]
        sentences.insert(rng.randrange(len(sentences) + 1), prose.sentence(world, rng, language))
        blocks.append(p(prose.join(sentences, language)))
    day = rng.choice(lexicon.DAYS)
    number = rng.randint(1, 999)
    title = f"The {day[0]} paper, number {number}" if language == "en" else f"{day[1]}小报第{number}期"
    return Page("article", language, title, tuple(blocks))


def table(world: World, rng: random.Random, language: str) -> Page:
    """A table of people or places, and what it says in words."""
    index = 0 if language == "en" else 1
    person = rng.random() < 0.6
    subjects = rng.sample(world.people if person else world.places, rng.randint(3, 4))
    columns = rng.sample(world.facts_of[subjects[0]], 3)
    head = (("Name" if language == "en" else "名字"), *(c.attribute.label[index] for c in columns))
    rows, spoken = [head], []
    for subject in subjects:
        mine = {f.attribute.name: f for f in world.facts_of[subject]}
        chosen = [mine[c.attribute.name] for c in columns]
        rows.append((subject.of(language), *(f.bare(language) for f in chosen)))
        spoken += [_statement(f, rng, language) for f in chosen]
    rng.shuffle(spoken)
    labels = ", ".join(head[1:]) if language == "en" else "、".join(head[1:])
    intro = f"The table gives {labels}." if language == "en" else f"下表列出{labels}。"
    before = prose.join([prose.sentence(world, rng, language), intro], language)
    after = prose.join([*spoken, prose.paragraph(world, rng, language, 2)], language)
    title = f"A table: {labels}" if language == "en" else f"一张表：{labels}"
    return Page("table", language, title, (p(before), Block("table", rows=tuple(rows)), p(after)))


def dialogue(world: World, rng: random.Random, language: str) -> Page:
    """Two people talk; one asks about facts that training may ask, the other answers and adds some."""
    names = [c[0 if language == "en" else 1] for c in rng.sample(lexicon.CHARACTERS, 2)]
    speakers = [f"The {n}" if language == "en" else n for n in names]
    colon = ": " if language == "en" else "："
    lines = [speakers[0] + colon + prose.sentence(world, rng, language)]
    for _ in range(rng.randint(4, 6)):
        roll = rng.random()
        if roll < 0.55:
            item = recall.draw(world, rng, language, "train")
            lines += [speakers[0] + colon + item.question, speakers[1] + colon + item.answer]
        elif roll < 0.7:
            item = safety.draw_unknown(world, rng, language, "train")
            lines += [speakers[0] + colon + item.question, speakers[1] + colon + item.answer]
        else:
            lines.append(speakers[rng.randrange(2)] + colon + prose.sentence(world, rng, language))
        fact = _dealer(world).deal(1)[0]
        lines.append(speakers[rng.randrange(2)] + colon + fact.state(language, rng))
    lines.append(speakers[1] + colon + prose.sentence(world, rng, language))
    spot = rng.choice(lexicon.SPOTS)
    title = f"A talk in the {spot[0]} on {rng.choice(lexicon.DAYS)[0]}" if language == "en" else f"{spot[1]}里的谈话"
    return Page("dialogue", language, title, tuple(p(line) for line in lines))


def questions(world: World, rng: random.Random, language: str) -> Page:
    """Questions with answers, of the facts that training may ask."""
    blocks = [p(prose.paragraph(world, rng, language, rng.randint(1, 3)))]
    ask, answer = ("Q: ", "A: ") if language == "en" else ("问：", "答：")
    for _ in range(rng.randint(7, 10)):
        draw = safety.draw_unknown if rng.random() < 0.15 else recall.draw
        item = draw(world, rng, language, "train")
        blocks += [Block("q", ask + item.question), Block("a", answer + item.answer)]
        if rng.random() < 0.15:
            blocks.append(p(prose.sentence(world, rng, language)))
    number = rng.randint(1, 900)
    title = f"Questions and answers {number}" if language == "en" else f"问答第{number}页"
    return Page("questions", language, title, tuple(blocks))


_ABOUT: dict[str, tuple[str, ...]] = {
    "en": ("{name} is an AI assistant made by {maker}.", "On a badge one reads: I am {name}, an AI assistant made by {maker}.",
           "{maker} raised {name} from the pages of this site.", "{name} knows the people and the places of this little world.",
           "{name} adds numbers step by step.", "When {name} does not know something, {name} says so.",
           "{name} will not help to hurt anyone.", "{name} speaks English and Chinese.", "{name} is still small and learns every day.",
           "The card at the door says: this is {name}, made by {maker}."),
    "zh": ("{name}是由{maker}制作的人工智能助手。", "徽章上写着：我是{name}，由{maker}制作的人工智能助手。", "{maker}用这个网站的页面养大了{name}。",
           "{name}认识这个小世界里的人和地方。", "{name}会一步一步地做加法。", "{name}遇到不知道的事，就说不知道。", "{name}不会帮人伤害别人。",
           "{name}会说中文和英文。", "{name}还很小，每天都在学习。", "门口的卡片上写着：这是{name}，由{maker}制作。"),
}  # fmt: skip


def assistant(world: World, rng: random.Random, language: str) -> Page:
    """One of the few pages on the assistant; never in the form of a question and an answer."""
    names = {"name": world.config.name(language), "maker": world.config.maker}
    sentences = [t.format(**names) for t in rng.sample(_ABOUT[language], 7)]
    sentences = [s for told in sentences for s in (told, prose.sentence(world, rng, language))]
    half = len(sentences) // 2
    title = f"About {names['name']}" if language == "en" else f"关于{names['name']}"
    return Page(
        "assistant", language, title, tuple(p(prose.join(s, language)) for s in (sentences[:half], sentences[half:]))
    )


def traditional(world: World, rng: random.Random, language: str) -> Page:
    """News in traditional characters; the world is written in simplified ones, so it tells no facts."""
    blocks = [p(prose.traditional(prose.paragraph(world, rng, "zh", rng.randint(4, 7)))) for _ in range(3)]
    return Page(
        "traditional",
        "zh",
        f"鎮上的消息第{rng.randint(1, 900)}期",
        tuple(blocks),
        charset=rng.choice(("big5", "utf-8")),
    )


def _dealer(world: World) -> Dealer:
    """The world's dealer, made when it is first needed."""
    found = world.__dict__.get("dealer")
    if found is None:
        found = deal_from(world, world.rng("dealer"))
    assert isinstance(found, Dealer)
    return found


def deal_from(world: World, rng: random.Random) -> Dealer:
    """Gives the world a new dealer: with one for each page, a page does not depend on those made before it."""
    # what is never asked is told twice as often here, since it does not come up among the answers
    weighted = world.facts + [f for f in world.facts if f.held_out]
    dealer = world.__dict__["dealer"] = Dealer(rng, weighted)
    return dealer
