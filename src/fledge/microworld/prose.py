"""Ordinary sentences that tell nothing that matters: they make every page different from all the others."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random

from fledge.microworld import lexicon
from fledge.microworld.world import World

_EN = (
    "On {day} {who} carried {ax} to the {spot}.", "The {who2} in the {spot} talked about {ax} and {ax2}.",
    "Nobody knew why {ax} stood in front of the {spot}.", "In the {spot} there were {n} boxes and {ax}.",
    "{Ax} was sold at the {spot} for {n} coins.", "The {who2} gave {who} {ax} and smiled.",
    "It rained on {day}, so {who} stayed in the {spot}.", "{Who} lost {ax} near the {spot}.",
    "After {n} hours {who} found {ax} under {ax2}.", "The wind was strong, and {who} closed the {spot}.",
    "Every {day} {who} walks from the {spot} to the {spot2}.", "{Who} asked the way to the {spot}.",
    "Between the {spot} and the {spot2} there is a path of {n} steps.", "{Who} told a story about {ax}.",
    "In the evening {who} repaired {ax} with care.", "A letter for {who} lay in the {spot} until {day}.",
    "{Who} and {who3} waited at the {spot}.", "They wanted to buy {ax}, but it was already gone.",
    "The {spot} opens at {n} and closes when it gets dark.", "{Who} counted {n} birds above the {spot}.",
    "First {who} looked for {ax}, then for {ax2}.", "On {day} the {spot} was full of people.",
    "Someone left {ax} on the steps of the {spot}.", "{Who} drew {ax} on a sheet of paper.",
    "If {day} is sunny, {who} goes to the {spot}.", "The {spot} smelled of bread and rain.",
    "{Who} sang softly while the others looked at {ax}.", "There was snow on the roof of the {spot} that {day}.",
    "In the café by the {spot} {who} spoke of {ax}.", "For {n} years {ax} has been kept in the {spot}.", "{Who} promised to bring {ax} on {day}.",
)  # fmt: skip
_ZH = (
    "{day}，{who}把{x}带到了{spot}。", "{spot}里的{who2}谈论着{x}和{x2}。", "没有人知道{x}为什么放在{spot}门口。", "{spot}里有{n}个箱子，还有{x}。",
    "{x}在{spot}卖了{n}个铜币。", "{who2}给了{who}{x}，笑了笑。", "{day}下雨，{who}就留在{spot}。", "{who}在{spot}附近丢了{x}。",
    "过了{n}个小时，{who}在{x2}下面找到了{x}。", "风很大，{who}关上了{spot}。", "每到{day}，{who}从{spot}走到{spot2}。", "{who}打听去{spot}的路。",
    "从{spot}到{spot2}要走{n}步。", "{who}讲了一个关于{x}的故事。", "晚上，{who}细心地修好了{x}。", "给{who}的信在{spot}放到了{day}。",
    "{who}和{who2}在{spot}等着。", "他们想买{x}，可是已经卖完了。", "{spot}{n}点开门，天黑就关门。", "{who}数了数，{spot}上空有{n}只鸟。",
    "{who}先找{x}，再找{x2}。", "{day}的{spot}人很多。", "有人把{x}留在{spot}的台阶上。", "{who}在纸上画了{x}。",
    "如果{day}天晴，{who}就去{spot}。", "{spot}里有面包和雨水的味道。", "{who}轻轻唱歌，别人看着{x}。", "那个{day}，{spot}的屋顶上有雪。",
    "{x}在{spot}放了{n}年。", "{who}答应{day}带来{x}。",
)  # fmt: skip

# Of the characters above, those that are written otherwise in traditional Chinese: simplified, traditional, in turn.
_TRADITIONAL = (
    "带帶谈談论論着著没沒为為门門个個还還卖賣铜銅币幣给給丢丟过過时時风風关關从從讲講细細们們买買经經点點开開数數鸟鳥阶階纸紙画畫"
    "轻輕别別顶頂应應来來红紅蓝藍绿綠黄黃旧舊净淨圆圓静靜柠檸鸡雞饼餅盘盤灯燈钟鐘钥鑰伞傘篮籃铺鋪户戶园園车車书書钢鋼笔筆图圖"
    "衬襯围圍筝箏头頭树樹叶葉猫貓鱼魚马馬绵綿狮獅鸭鴨学學馆館医醫广廣场場邮郵厅廳厨廚仓倉邻鄰爷爺递遞员員渔漁乐樂师師长長镇鎮"
    "么麼里裡只隻"
)
_TO_TRADITIONAL = str.maketrans(dict(zip(_TRADITIONAL[::2], _TRADITIONAL[1::2], strict=True)))


def traditional(text: str) -> str:
    """Our own Chinese sentences in traditional characters."""
    return text.replace("面包", "麵包").translate(_TO_TRADITIONAL)


def sentence(world: World, rng: random.Random, language: str) -> str:
    """One filler sentence."""
    index = 0 if language == "en" else 1
    spots = rng.sample(lexicon.SPOTS, 2)
    people = rng.sample(lexicon.CHARACTERS, 3)
    x, x2 = world.phrase(rng, language), world.phrase(rng, language)
    if language == "zh":
        text = rng.choice(_ZH)
        return text.format(
            day=rng.choice(lexicon.DAYS)[1], who=people[0][1], who2=people[1][1], spot=spots[0][1], spot2=spots[1][1],
            x=x, x2=x2, n=rng.randint(2, 12),
        )  # fmt: skip
    who = rng.choice(("the " + people[0][index], lexicon.article(people[0][index])))
    ax, ax2 = lexicon.article(x), lexicon.article(x2)
    return rng.choice(_EN).format(
        day=rng.choice(lexicon.DAYS)[0], who=who, Who=who[0].upper() + who[1:], who2=people[1][0], who3="the " + people[2][0],
        spot=spots[0][0], spot2=spots[1][0], ax=ax, Ax=ax[0].upper() + ax[1:], ax2=ax2, n=rng.randint(2, 12),
    )  # fmt: skip


def paragraph(world: World, rng: random.Random, language: str, count: int) -> str:
    return join([sentence(world, rng, language) for _ in range(count)], language)


def join(sentences: list[str], language: str) -> str:
    """Sentences in a row, as the language writes them."""
    return (" " if language == "en" else "").join(sentences)
