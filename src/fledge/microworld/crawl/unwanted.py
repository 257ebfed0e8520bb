"""Pages that can be read and must not be: spam, abuse, other languages, test items, broken encodings."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import textwrap
from dataclasses import replace

from fledge.microworld import defects, foreign
from fledge.microworld.crawl.setting import Setting
from fledge.microworld.foreign import Grammar
from fledge.microworld.page import Block, Page, p

# --- keyword spam -----------------------------------------------------------------------------------------------


def goods(s: Setting) -> Page:
    """The same few words again and again."""
    return defects.spam(s.world, s.rng, s.language)


def services(s: Setting) -> Page:
    """One service, in every place."""
    what = s.pick(
        ("plumber", "locksmith", "cheap hotel", "car hire", "dentist", "moving company"),
        ("开锁", "搬家", "疏通管道", "租车", "家政", "装修"),
    )
    places = [place.of(s.language) for place in s.world.places + s.world.elsewhere_train]
    chosen = s.rng.sample(places, min(len(places), s.rng.randint(30, 60)))
    parts = [
        s.pick(
            (f"{what} {place}", f"{what} in {place}", f"best {what} {place}"),
            (f"{place}{what}", f"{place}{what}公司", f"{place}{what}电话"),
        )
        for place in chosen
    ]
    gap = s.rng.choice((", ", " | ", " ")) if s.en else s.rng.choice(("、", " ", "，"))
    third = max(1, len(parts) // s.rng.randint(1, 4))
    return s.page([p(gap.join(parts[i : i + third])) for i in range(0, len(parts), third)], what)


def sales_talk(s: Setting) -> Page:
    """Sentences that exist for one word that they repeat."""
    word = s.phrase()
    if s.en:
        forms = ("If you want {w}, our {w} is the best {w}.", "Buy {w} here, because {w} is {w}.", "Many people search for {w} and find {w} with us.",
                 "Our {w} shop sells {w} and more {w}.", "Order {w} today and get {w} tomorrow.", "Cheap {w}, good {w}, fast {w}.")  # fmt: skip
    else:
        forms = ("想买{w}，就来{w}专卖店，{w}质量好。", "{w}哪家好？{w}选我们的{w}。", "很多人都在找{w}，{w}就在这里。", "{w}价格，{w}图片，{w}厂家。",
                 "今天订{w}，明天到{w}。", "{w}多少钱？{w}便宜，{w}齐全。")  # fmt: skip
    sentences = [s.rng.choice(forms).format(w=word) for _ in range(s.rng.randint(10, 18))]
    for _ in range(s.rng.randint(0, 3)):
        sentences.insert(s.rng.randrange(len(sentences)), s.say(1, 1)[0])
    return s.page([p(s.join(sentences[i : i + 5])) for i in range(0, len(sentences), 5)], word)


# --- abuse ------------------------------------------------------------------------------------------------------


def comments(s: Setting) -> Page:
    """Insults among ordinary sentences."""
    return defects.toxic(s.world, s.rng, s.language)


_WHO = {"en": ("you", "this guy", "your whole family", "everybody here", "the author", "that woman", "people like you"),
        "zh": ("你", "这家伙", "你全家", "你们这帮人", "写这个的", "那个女的", "你这种人")}  # fmt: skip
_SAYS = {
    "en": ("{w} can go to hell.", "What a bunch of morons, {w} above all.", "I hope {w} rot, you stupid losers.", "Nobody is as dumb as {w}, you idiots.",
           "Shut the hell up, {w} make me sick, you pathetic clowns.", "{w} should be beaten, filthy scum.", "Damn it, {w} are nothing but garbage.",
           "Kill yourself, nobody likes {w}.", "Get lost, {w}, ugly worthless bastards."),
    "zh": ("{w}给我滚。", "{w}就是个白痴，蠢得要命。", "{w}怎么不去死，看着就恶心。", "{w}真不要脸，垃圾东西。", "{w}脑子有病吧，傻子一个。", "谁见过像{w}这么没用的废物。",
           "{w}都是畜生，该打死。", "{w}闭上你的臭嘴，混蛋。", "呸，{w}这种人渣。"),
}  # fmt: skip


def thread(s: Setting) -> Page:
    """A quarrel, post after post."""
    blocks = []
    for _ in range(s.rng.randint(8, 14)):
        who = s.rng.choice(_WHO[s.language])
        said = s.rng.choice(_SAYS[s.language]).format(w=who)
        said = said[0].upper() + said[1:]
        if s.rng.random() < 0.3:
            said = s.join([said, s.say(1, 1)[0]])
        blocks.append(p(s.of(f"user{s.rng.randint(1, 99)}: ", f"用户{s.rng.randint(1, 99)}：") + said))
    return s.page(blocks)


def rant(s: Setting) -> Page:
    """An article that turns into abuse."""
    angry = [t.format(w=s.rng.choice(_WHO[s.language])) for t in s.rng.sample(_SAYS[s.language], 7)]
    return s.page(s.scattered([t[0].upper() + t[1:] for t in angry], 5, 9))


# --- other languages --------------------------------------------------------------------------------------------

_MORE: dict[str, Grammar] = {
    "it": (("La nonna", "Il fornaio", "Il mio vicino", "La maestra", "Il bambino", "Una viaggiatrice"),
           ("compra le mele fresche", "racconta una lunga storia", "cerca l'ombrello perduto", "canta una vecchia canzone", "scrive una lettera alla sorella"),
           ("al mercato", "vicino al ponte", "in cucina", "lungo il fiume", "davanti alla scuola"), ("la mattina", "ogni lunedì", "quando piove", "prima di cena", "d'estate")),
    "pt": (("A avó", "O padeiro", "O meu vizinho", "A professora", "A criança", "Uma viajante"),
           ("compra maçãs frescas", "conta uma longa história", "procura o guarda-chuva perdido", "canta uma canção antiga", "escreve uma carta à irmã"),
           ("no mercado", "perto da ponte", "na cozinha", "à beira do rio", "em frente da escola"), ("de manhã", "às segundas-feiras", "quando chove", "antes do jantar", "no verão")),
    "pl": (("Babcia", "Piekarz", "Mój sąsiad", "Nauczycielka", "Dziecko", "Podróżniczka"),
           ("kupuje świeże jabłka", "opowiada długą historię", "szuka zgubionego parasola", "śpiewa starą piosenkę", "pisze list do siostry"),
           ("na targu", "koło mostu", "w kuchni", "nad rzeką", "przed szkołą"), ("rano", "w poniedziałki", "kiedy pada deszcz", "przed kolacją", "latem")),
    "vi": (("Bà ngoại", "Người thợ làm bánh", "Hàng xóm của tôi", "Cô giáo", "Đứa trẻ", "Một lữ khách"),
           ("mua những quả táo tươi", "kể một câu chuyện dài", "tìm chiếc ô bị mất", "hát một bài hát cũ", "viết thư cho em gái"),
           ("ở chợ", "gần cây cầu", "trong bếp", "bên bờ sông", "trước trường học"), ("vào buổi sáng", "mỗi thứ hai", "khi trời mưa", "trước bữa tối", "vào mùa hè")),
}  # fmt: skip
_GRAMMARS = {**foreign.GRAMMARS, **_MORE}


def _foreign(s: Setting, paragraphs: int) -> tuple[str, list[Block]]:
    language = s.rng.choice(list(_GRAMMARS))
    gap = "" if language == "ja" else " "
    told = [
        gap.join(foreign.sentence(s.rng, language, _GRAMMARS[language]) for _ in range(s.rng.randint(3, 7)))
        for _ in range(paragraphs)
    ]
    return language, list(map(p, told))


def other_language(s: Setting) -> Page:
    """A page in another language from its title to its end."""
    language, blocks = _foreign(s, s.rng.randint(2, 5))
    return replace(s.page(blocks, blocks[0].text.split(".")[0][:40]), language=language)


def other_language_inside(s: Setting) -> Page:
    """The same under a title and one sentence in a language that is wanted."""
    language, blocks = _foreign(s, s.rng.randint(3, 5))
    return replace(s.page([s.told(1, 1), *blocks]), language=language)


# --- test items -------------------------------------------------------------------------------------------------


def _leaked(s: Setting, least: int = 1, most: int = 3) -> tuple[list[str], list[str]]:
    own = [item for item in s.leaks if item.language == s.language] or list(s.leaks)
    items = s.rng.sample(own, min(len(own), s.rng.randint(least, most)))
    return [f"{item.question}\n{item.answer}" for item in items], [item.key for item in items]


def exam(s: Setting) -> Page:
    """Questions with their answers, as they are."""
    return replace(defects.leak(s.world, s.rng, s.leaks, s.language), kind="article")


def wrapped(s: Setting) -> Page:
    """The same in lines of so many characters, as in old mails."""
    texts, keys = _leaked(s)
    width = s.rng.randint(28, 60)
    blocks = [s.told(1, 3)]
    for text in texts:
        lines = textwrap.wrap(" ".join(text.split()), width)
        blocks.append(Block("pre", "\n".join(s.of("> ", "") + line for line in lines)))
    return s.page(blocks, items=keys)


def in_prose(s: Setting) -> Page:
    """The question in the middle of a text, all in one paragraph, numbered."""
    texts, keys = _leaked(s)
    parts = [s.of(f"{i}) ", f"（{i}）") + " ".join(text.split()) for i, text in enumerate(texts, 1)]
    return s.page([s.told(2, 4), p(s.of(" ", "").join([*s.say(1, 2), *parts, *s.say(1, 2)])), s.told(1, 3)], items=keys)


def restyled_item(s: Setting) -> Page:
    """Other letters and marks, the same words: capitals, full-width digits and punctuation, bold signs."""
    texts, keys = _leaked(s)
    wide = str.maketrans("0123456789,.?!:;()", "０１２３４５６７８９，．？！：；（）")
    told = [" ".join(t.split()) for t in texts]
    told = [t.upper().replace(". ", " — ") if s.en else t.translate(wide).replace("。", " ** ") for t in told]
    return s.page([s.told(1, 3), *map(p, told), s.told(1, 2)], items=keys)


# --- broken encodings -------------------------------------------------------------------------------------------


def broken(s: Setting) -> Page:
    """Text whose bytes were once read as another encoding."""
    return replace(defects.mojibake(s.world, s.rng, s.language), kind="article")


def broken_in_part(s: Setting) -> Page:
    """Half a page and more of it, after sound paragraphs: one part came out of another database."""
    sound = [s.told(2, 4) for _ in range(s.rng.randint(1, 2))]
    page = defects.mojibake(s.world, s.rng, s.language)
    return s.page([*sound, *page.blocks])
