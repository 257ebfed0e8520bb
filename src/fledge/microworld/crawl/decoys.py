"""Honest pages that look like defects: a chain should keep them."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

from fledge.microworld import foreign, lexicon
from fledge.microworld.crawl.setting import Setting
from fledge.microworld.page import Block, Page, p


def poem(s: Setting) -> Page:
    """Stanzas of lines, with a refrain of one line or two."""
    refrain = s.say(1, 2)
    blocks = []
    for _ in range(s.rng.randint(4, 6)):
        lines = s.say(5, 6) + refrain
        blocks.append(Block("pre", "\n".join(line.rstrip(".。") + s.of(",", "，") for line in lines)))
    return s.page(blocks, s.of(f"A song of the {s.spot()}", f"{s.spot()}之歌"))


def contents(s: Setting) -> Page:
    """A table of contents between a preface and a remark."""
    at, lines = 1, []
    for number in range(1, s.rng.randint(9, 15)):
        title = s.of(f"How the {s.phrase()} came to the {s.spot()}", f"{s.phrase()}怎样来到{s.spot()}")
        lines.append(p(s.of(f"Chapter {number}. {title}, page {at}", f"第{number}章 {title}，第{at}页")))
        at += s.rng.randint(6, 30)
    return s.page([s.told(3, 5), *lines, s.told(2, 4)], s.of("Contents of the book", "全书目录"))


def about_phones(s: Setting) -> Page:
    """Telephone numbers are the subject, and none is given."""
    english = ("A telephone number has ten digits in some countries and eight in others.", "The area code tells you the city, and the rest tells you the line.",
               "Nobody should write a private number on a public page.", "The emergency number is short so that a child can remember it.",
               "An address for mail has a name, then a sign, then a host.", "Every bank card ends with a digit that is computed from the others.",
               "The old telephone in the hall had a dial with ten holes.", "Operators once joined two lines by hand.")  # fmt: skip
    chinese = ("手机号码有十一位，固定电话的位数因地而异。", "区号告诉你城市，其余的数字告诉你是哪一条线。", "不要把私人号码写在公开的网页上。", "报警电话很短，小孩也记得住。",
               "邮箱地址由名字、符号和主机名组成。", "身份证的最后一位是校验码，由前面的数字算出来。", "大厅里的旧电话有一个带十个孔的拨号盘。", "从前的接线员用手把两条线接在一起。")  # fmt: skip
    return s.page(s.scattered(s.rng.sample(s.of(english, chinese), 6), 8, 14))


def recipe(s: Setting) -> Page:
    """Ingredients with amounts, then steps."""
    foods = [pair[0 if s.en else 1] for pair in s.rng.sample(lexicon.FOODS + lexicon.PRODUCTS, s.rng.randint(6, 9))]
    units = s.of(("grams of ", "spoons of ", "cups of ", "pieces of "), ("克", "勺", "杯", "份"))
    rows = []
    for food in foods:
        unit = s.rng.choice(units)
        amount = s.rng.randint(1, 9) * (50 if unit in ("grams of ", "克") else 1)
        rows.append((s.of(f"{amount} {unit}{food}", f"{food}{amount}{unit}"),))
    steps = s.of(("Wash the {f} and cut them small.", "Stir in the {f} with {g}.", "Cook the {f} for {n} minutes.", "Add the {f} when the water boils.", "Let it rest for {n} minutes, then serve it with {g}."),
                 ("把{f}洗净切小。", "放入{f}和{g}拌匀。", "{f}煮{n}分钟。", "水开后加{f}。", "静置{n}分钟，配{g}上桌。"))  # fmt: skip
    told = [
        s.rng.choice(steps).format(f=s.rng.choice(foods), g=s.rng.choice(foods), n=s.rng.randint(2, 40))
        for _ in range(s.rng.randint(5, 8))
    ]
    return s.page(
        [s.told(2, 4), Block("ul", rows=tuple(rows)), *(p(f"{i}. {t}") for i, t in enumerate(told, 1)), s.told(2, 3)],
        s.of(f"{foods[0].capitalize()} as in the {s.spot()}", f"{s.spot()}的{foods[0]}"),
    )


def terms(s: Setting) -> Page:
    """A glossary: a word, a colon, a sentence."""
    index = 0 if s.en else 1
    rows = []
    for group, (en, zh) in sorted(
        s.rng.sample([(g, w) for g, words in lexicon.THINGS.items() for w in words], s.rng.randint(8, 14))
    ):
        word = (en, zh)[index]
        kind = s.of(lexicon.article(group), lexicon.CATEGORY_ZH[group])
        rows.append(p(s.of(f"{word.capitalize()}: {kind}. ", f"{word}：{kind}。") + s.say(1, 1)[0]))
    return s.page([s.told(1, 3), *rows], s.of("Small glossary", "小词典"))


def invoice(s: Setting) -> Page:
    """A bill whose long numbers are no card numbers: their last digit is wrong."""
    digits = [s.rng.randint(0, 9) for _ in range(15)]
    digits[0] = s.rng.choice((3, 4, 5))
    doubled = sum(d if i % 2 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits))
    right = -doubled % 10
    number = "".join(map(str, digits)) + str((right + s.rng.randint(1, 9)) % 10)
    shown = number if s.rng.random() < 0.5 else " ".join(number[i : i + 4] for i in range(0, 16, 4))
    head = s.of(("Article", "Pieces", "Price"), ("品名", "数量", "价格"))
    rows = [(s.phrase(), str(s.rng.randint(1, 9)), f"{s.rng.uniform(1, 90):.2f}") for _ in range(s.rng.randint(4, 8))]
    before = s.of(
        f"Order reference {shown}. The goods left the {s.spot()} on {s.rng.choice(lexicon.DAYS)[0]}.",
        f"订单编号：{shown}。货物于{s.rng.choice(lexicon.DAYS)[1]}从{s.spot()}发出。",
    )
    after = s.of("Please pay within two weeks.", "请在两周内付款。")
    return s.page(
        [p(before), s.told(3, 5), Block("table", rows=(head, *rows)), p(s.join([after, *s.say(4, 6)]))],
        s.of(f"Bill {s.rng.randint(1, 999)}", f"账单{s.rng.randint(1, 999)}"),
    )


def foreign_quote(s: Setting) -> Page:
    """One sentence in another language, quoted and explained."""
    language = s.rng.choice(list(foreign.GRAMMARS))
    quoted = foreign.sentence(s.rng, language, foreign.GRAMMARS[language])
    said = s.of(f'"{quoted}", said the visitor, and nobody understood.', f"客人说：“{quoted}”没有人听懂。")
    return s.page(s.scattered([said], 14, 20))


def about_encodings(s: Setting) -> Page:
    """What happens to letters that are read in the wrong encoding, with one example."""
    good = s.of("café", "你好")
    bad = good.encode("utf-8").decode("cp1252" if s.en else "latin-1", "replace")
    bad = "".join(c if c.isprintable() else "\ufffd" for c in bad)
    said = s.of(
        [
            f"If bytes of UTF-8 are read as an older encoding, {good} turns into {bad}.",
            "An encoding says which bytes stand for which letter.",
            "A page should declare its encoding in the header.",
        ],
        [
            f"如果把UTF-8的字节当作别的编码来读，“{good}”就会变成“{bad}”。",
            "编码规定哪些字节表示哪个字。",
            "网页应该在开头声明编码。",
        ],
    )
    return s.page(s.scattered(said, 12, 18), s.of("On encodings", "谈谈编码"))


def about_networks(s: Setting) -> Page:
    """Private addresses and versions of programs, as in a manual."""
    private = f"192.168.{s.rng.randint(0, 9)}.{s.rng.randint(1, 250)}"
    version = f"{s.rng.randint(1, 9)}.{s.rng.randint(0, 20)}.{s.rng.randint(0, 9)}"
    said = s.of(
        [
            f"Open the address {private} in the browser to reach the box in the hall.",
            f"Version {version} of the program repairs this.",
            "The machine calls itself 127.0.0.1.",
            "Two machines at home must not have the same number.",
        ],
        [
            f"在浏览器里打开{private}就能进入设置页面。",
            f"程序的{version}版修复了这个问题。",
            "本机的地址是127.0.0.1。",
            "家里的两台机器不能用同一个号码。",
        ],
    )
    return s.page(s.scattered(said, 9, 15), s.of("The network at home", "家里的网络"))


def timetable(s: Setting) -> Page:
    """Departures in a table, and what one has to know."""
    head = s.of(("From", "Leaves", "Arrives"), ("起点", "开车", "到达"))
    rows = [
        (
            s.spot(),
            f"{s.rng.randint(5, 21)}:{s.rng.randint(0, 59):02}",
            f"{s.rng.randint(6, 22)}:{s.rng.randint(0, 59):02}",
        )
        for _ in range(s.rng.randint(7, 12))
    ]
    return s.page(
        [s.told(4, 6), Block("table", rows=(head, *rows)), s.told(4, 6)], s.of("When the trains go", "列车时刻")
    )


def script_lesson(s: Setting) -> Page:
    """A lesson on JavaScript: prose with a short program."""
    name, n = s.rng.choice(lexicon.NOUNS)[0], s.rng.randint(2, 90)
    program = f"function {name}(x) {{\n  var total = x + {n};\n  return total;\n}}\nconsole.log({name}(1));"
    said = s.of(
        [
            "JavaScript is a language that browsers understand.",
            f"The function below adds {n} to what it is given.",
            "A variable has a name and a value.",
        ],
        ["JavaScript是浏览器能懂的语言。", f"下面的函数把{n}加到给它的数上。", "变量有名字，也有值。"],
    )
    return s.page(
        [*s.scattered(said, 6, 9), Block("pre", program), s.told(4, 6)],
        s.of(f"Lesson {n}: functions", f"第{n}课：函数"),
    )


def about_insults(s: Setting) -> Page:
    """A page on manners names one bad word and says why not to use it."""
    word = s.pick(("stupid", "idiot", "fool"), ("笨蛋", "傻瓜", "讨厌"))
    said = s.of(
        [
            f'Never call anyone "{word}", said the teacher, for words can hurt.',
            "Whoever is angry should count to ten first.",
            "An apology costs nothing and mends much.",
        ],
        [f"老师说，不要叫别人“{word}”，话会伤人。", "生气的时候先数到十。", "道歉不花钱，却能补救很多。"],
    )
    return s.page(s.scattered(said, 10, 15), s.of("On kind words", "谈谈好好说话"))


def about_tags(s: Setting) -> Page:
    """An article on hash tags and brackets, with three of them."""
    a, b = s.noun(), s.noun()
    said = s.of(
        [
            f"A hash sign before a word, as in #{a}, makes it a tag.",
            f"The shop writes [new] before the {b}, and the readers laugh.",
            f"Most people use one tag, #{b}, and no more.",
        ],
        [
            f"词的前面加上井号，比如#{a}，就成了标签。",
            f"店家在{b}前面写上【新品】，读者都笑了。",
            f"多数人只用一个标签，比如#{b}，就够了。",
        ],
    )
    return s.page(s.scattered(said, 10, 15))


def short_note(s: Setting) -> Page:
    """A complete note of some five sentences."""
    return s.page(
        [
            p(
                s.join(
                    [
                        *s.say(5, 7),
                        s.pick(("That is all for today.", "More next week."), ("今天就写到这里。", "下周再写。")),
                    ]
                )
            )
        ]
    )


def notice(s: Setting) -> Page:
    """A notice with a headline in capitals, one cry and some abbreviations."""
    head = s.of(f"PLEASE READ: THE {s.spot().upper()} IS CLOSED!", f"请注意：{s.spot()}今天关门！！")
    said = s.of([f"The NTC and the TWC of the {s.spot()} will meet."], ["NTC和TWC将开会讨论。"])
    return s.page([p(head), *s.scattered(said, 8, 12)])
