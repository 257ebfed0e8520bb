"""Pages on which there is nothing to read: random characters, dummy text, program text, symbols, numbers, shouting."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import base64
from collections.abc import Callable

from fledge.microworld.crawl.setting import Setting
from fledge.microworld.page import Block, Page, p


def random_letters(s: Setting) -> Page:
    """Words of random letters; in Chinese, characters from anywhere in the Unicode block."""
    blocks = []
    for _ in range(s.rng.randint(2, 5)):
        if s.en:
            words = [
                "".join(s.rng.choices("abcdefghijklmnopqrstuvwxyz", k=s.rng.randint(2, 11)))
                for _ in range(s.rng.randint(25, 60))
            ]
            blocks.append(p(" ".join(words).capitalize() + s.rng.choice((".", "", "!"))))
        else:
            text = "".join(chr(s.rng.randint(0x4E00, 0x9FA5)) for _ in range(s.rng.randint(40, 110)))
            blocks.append(p(text + s.rng.choice(("。", "", "！"))))
    return s.page(blocks, blocks[0].text[:12])


_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_COMMON = "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长"


def mashed_keys(s: Setting) -> Page:
    """A hand across the keyboard; in Chinese, frequent characters in no order, with punctuation as in real text."""
    sentences = []
    for _ in range(s.rng.randint(12, 24)):
        if s.en:
            row = s.rng.choice(_ROWS)
            words = ["".join(s.rng.choices(row, k=s.rng.randint(3, 9))) for _ in range(s.rng.randint(4, 9))]
            sentences.append(" ".join(words) + s.rng.choice((".", ",", "")))
        else:
            sentences.append("".join(s.rng.choices(_COMMON, k=s.rng.randint(8, 22))) + s.rng.choice("，。。"))
    return s.page([p(s.join(sentences[i : i + 6])) for i in range(0, len(sentences), 6)])


def encoded_data(s: Setting) -> Page:
    """A file that was printed as text."""
    data = s.rng.randbytes(s.rng.randint(400, 1200))
    text = data.hex() if s.rng.random() < 0.4 else base64.b64encode(data).decode("ascii")
    width = s.rng.choice((64, 76))
    lines = [text[i : i + width] for i in range(0, len(text), width)]
    head = [] if s.rng.random() < 0.5 else [p(s.of("Attachment", "附件"))]
    return s.page([*head, *map(p, lines)])


_LATIN = (
    "lorem", "ipsum", "dolor", "sit", "amet", "consectetur", "adipiscing", "elit", "sed", "do", "eiusmod", "tempor",
    "incididunt", "ut", "labore", "et", "dolore", "magna", "aliqua", "ut", "enim", "ad", "minim", "veniam", "quis",
    "nostrud", "exercitation", "ullamco", "laboris", "nisi", "aliquip", "ex", "ea", "commodo", "consequat", "duis",
    "aute", "irure", "in", "reprehenderit", "voluptate", "velit", "esse", "cillum", "eu", "fugiat", "nulla",
    "pariatur", "excepteur", "sint", "occaecat", "cupidatat", "non", "proident",
)  # fmt: skip


def _latin(s: Setting, least: int, most: int) -> str:
    words = s.rng.choices(_LATIN, k=s.rng.randint(least, most))
    return " ".join(words).capitalize() + "."


def lorem_classic(s: Setting) -> Page:
    """A template that was published with its dummy text, in part or all of it."""
    first = "Lorem ipsum dolor sit amet, consectetur adipiscing elit. " + _latin(s, 8, 14)
    blocks = [
        p(first),
        *(p(" ".join(_latin(s, 8, 16) for _ in range(s.rng.randint(2, 5)))) for _ in range(s.rng.randint(1, 4))),
    ]
    if s.rng.random() < 0.5:
        blocks.insert(0, s.told(1, 2))
    return s.page(blocks)


def lorem_own(s: Setting) -> Page:
    """Dummy text that does not begin with the two words; in Chinese, the dummy sentences of page builders."""
    if s.en:
        words = ("Your content goes here.", "This is a sample paragraph.", "Edit this text in the page builder.", "Click here to add your own text.",
                 "Use this space to tell your story.", "Add a short description of your product.", "Heading goes here.", "Replace this text.")  # fmt: skip
    else:
        words = ("这里是示例文字。", "点击此处添加正文内容。", "请在此输入您的文字。", "双击编辑文本。", "这里填写公司简介。", "此处为占位文字。",
                 "请替换为您的标题。", "此段文字仅供排版演示。")  # fmt: skip
    blocks = [p(s.join([s.rng.choice(words) for _ in range(s.rng.randint(3, 6))])) for _ in range(s.rng.randint(3, 6))]
    return s.page(blocks, s.of("Sample page", "示例页面"))


def lorem_framed(s: Setting) -> Page:
    """Three fifths of the page or more are dummy text, among real sentences."""
    blocks = [
        p("Lorem ipsum dolor sit amet. " + " ".join(_latin(s, 8, 16) for _ in range(3)))
        for _ in range(s.rng.randint(2, 3))
    ]
    blocks.insert(s.rng.randrange(2), s.told(2, 3))
    return s.page(blocks)


def script_text(s: Setting) -> Page:
    """JavaScript that a broken page shows as its text."""
    names = [f"{w}{s.rng.randint(1, 99)}" for w in ("slider", "menu", "track", "banner", "widget", "cart")]

    def line() -> tuple[str, ...]:
        n, m, k = s.rng.choice(names), s.rng.choice(names), s.rng.randint(1, 5000)
        return (
            f"var {n} = document.getElementById('{m}');", f"if (typeof {n} !== 'undefined') {{ {n}.init({k}); }}",
            f"window.{n} = window.{n} || []; {n}.push(['set', {k}]);", f"$(function() {{ $('#{m}').{n}({{speed: {k}, loop: true}}); }});",
            f"{n}.addEventListener('click', function(e) {{ e.preventDefault(); {m}({k}); }});", f"setTimeout(function(){{{m}.show()}}, {k});",
        )  # fmt: skip

    return _printed(s, 10, 26, line)


def style_text(s: Setting) -> Page:
    """Style sheets and markup as text."""

    def line() -> tuple[str, ...]:
        a, n = s.rng.choice(("header", "post", "widget", "nav", "col", "btn")), s.rng.randint(1, 99)
        return (
            f".{a}-{n} {{ margin: {n}px 0; color: #{n:06x}; float: left; }}", f'<div class="{a} {a}-{n}"><span style="width:{n}px"></span></div>',
            f"#{a}{n}:hover {{ background: url(/img/{a}-{n}.png) no-repeat; }}", f"@media (max-width: {n * 10}px) {{ .{a} {{ display: none; }} }}",
        )  # fmt: skip

    return _printed(s, 10, 24, line)


def server_errors(s: Setting) -> Page:
    """What a server says when it should not: traces, warnings, template tags."""

    def line() -> tuple[str, ...]:
        n = s.rng.randint(10, 999)
        return (
            f"Warning: mysqli_connect(): (HY000/2002): Connection refused in /var/www/html/db{n}.php on line {n}",
            f"Notice: Undefined index: page_{n} in /home/site/public_html/index.php on line {n}", f"at com.example.web.Servlet{n}.doGet(Servlet{n}.java:{n})",
            f"{{{{ item_{n}.title }}}} {{% if user_{n} %}}{{{{ user_{n}.name }}}}{{% endif %}}", f"<?php echo get_option('field_{n}'); ?>",
        )  # fmt: skip

    return _printed(s, 8, 16, line)


def _printed(s: Setting, least: int, most: int, line: Callable[[], tuple[str, ...]]) -> Page:
    """So many lines, each one of those that are offered for it, as lines or as one paragraph, after two sentences at
    most."""
    lines = [s.rng.choice(line()) for _ in range(s.rng.randint(least, most))]
    blocks = [s.told(1, 2)] if s.rng.random() < 0.6 else []
    blocks += [p(" ".join(lines))] if s.rng.random() < 0.3 else list(map(p, lines))
    return s.page(blocks, traces=dict.fromkeys(lines, 0))


def hash_tags(s: Setting) -> Page:
    """Tags and nothing else."""
    mark = s.of("#{x}", "#{x}#")
    lines = [" ".join(mark.format(x=s.noun()) for _ in range(s.rng.randint(5, 9))) for _ in range(s.rng.randint(5, 10))]
    return s.page(list(map(p, lines)))


def ornaments(s: Setting) -> Page:
    """Rulers, stars and arrows around very few words."""
    lines = []
    for _ in range(s.rng.randint(8, 16)):
        sign = s.rng.choice("★☆=*~-_■◆●→♥|/\\+")
        ruler = sign * s.rng.randint(12, 40)
        lines.append(ruler if s.rng.random() < 0.7 else f"{ruler[:6]} {s.noun()} {ruler[:6]}")
    return s.page(list(map(p, lines)))


def faces(s: Setting) -> Page:
    """Emoji, almost alone."""
    signs = "😀😂😍🔥👍🎉💰✨🙏💯❤😭🤔👏🌟"
    lines = [
        "".join(s.rng.choices(signs, k=s.rng.randint(4, 14))) + s.rng.choice(("", s.noun(), "!!!"))
        for _ in range(s.rng.randint(10, 20))
    ]
    return s.page(list(map(p, lines)))


def draws(s: Setting) -> Page:
    """Drawn numbers, line by line, hardly a word."""
    rows = []
    for i in range(s.rng.randint(15, 40)):
        numbers = " ".join(f"{n:02}" for n in sorted(s.rng.sample(range(1, 34), 6)))
        rows.append(p(s.of(f"{300 - i}: {numbers}", f"{300 - i}期 {numbers}")))
    return s.page(rows, s.of("Results", "开奖结果"))


def quotes(s: Setting) -> Page:
    """A table of figures without a sentence."""
    head = s.of(("No.", "Open", "High", "Low", "Close"), ("序号", "开盘", "最高", "最低", "收盘"))
    rows = [(str(i), *(f"{s.rng.uniform(1, 90):.2f}" for _ in range(4))) for i in range(1, s.rng.randint(20, 45))]
    return s.page([Block("table", rows=(head, *rows))], s.of("Table", "数据表"))


def readings(s: Setting) -> Page:
    """Figures in one run, with a few words between."""
    parts = []
    for _ in range(s.rng.randint(60, 140)):
        parts.append(s.noun() if s.rng.random() < 0.08 else f"{s.rng.uniform(0, 999):.{s.rng.randint(0, 3)}f}")
    return s.page([p(" ".join(parts))])


def capitals(s: Setting) -> Page:
    """Everything in capitals; Chinese has none, so it doubles its words and its exclamation marks."""
    sentences = s.say(8, 16)
    if s.en:
        sentences = [t.upper().rstrip(".") + "!" * s.rng.randint(1, 5) for t in sentences]
    else:
        cries = ("快快快", "急急急", "注意注意注意", "看看看", "疯了疯了", "来来来")
        sentences = [
            s.rng.choice(cries) + "！" * s.rng.randint(2, 4) + t.rstrip("。") + "！" * s.rng.randint(3, 8)
            for t in sentences
        ]
    return s.page([p(s.join(sentences[i : i + 4])) for i in range(0, len(sentences), 4)])


_CRIES = {
    "en": ("WOW", "HURRY UP", "LAST CHANCE", "CALL NOW", "FREE", "DO NOT MISS IT", "AMAZING", "TODAY ONLY", "ACT NOW"),
    "zh": ("最后一天", "千万别错过", "马上抢", "惊呆了", "太划算了", "限时疯抢", "全场清仓", "速来"),
}


def cries(s: Setting) -> Page:
    """Short cries, line after line."""
    mark, gap, most = s.of(("!", " ", 6), ("！", "", 9))
    lines = []
    for _ in range(s.rng.randint(12, 24)):
        cry, what = s.rng.choice(_CRIES[s.language]), s.noun().upper()
        lines.append(f"{cry}{mark * s.rng.randint(2, most)}{gap}{what}{mark * s.rng.randint(1, most)}")
    return s.page(list(map(p, lines)))


_TAGS = {
    "en": ("HOT", "NEW", "SALE", "TOP", "FREE SHIPPING", "LIMITED", "ORIGINAL", "BEST PRICE", "VIP", "GIFT"),
    "zh": ("正品", "包邮", "热卖", "新品", "限时", "特价", "官方", "推荐", "独家", "爆款", "秒杀", "满减"),
}


def tagged(s: Setting) -> Page:
    """Offers in brackets, one behind the other."""
    left, right = s.of(("[", "]"), ("【", "】"))
    lines = []
    for _ in range(s.rng.randint(8, 16)):
        tags = "".join(f"{left}{t}{right}" for t in s.rng.sample(_TAGS[s.language], s.rng.randint(2, 4)))
        lines.append(p(f"{tags}{s.of(' ', '')}{s.phrase()}"))
    return s.page(lines)


def bracketed_prose(s: Setting) -> Page:
    """Sentences in which brackets stand around every third word or so."""
    left, right = s.of((("[[", "]]"), ("((", "))")), (("【", "】"), ("【", "】")))[s.rng.randrange(2)]
    sentences = []
    for _ in range(s.rng.randint(8, 14)):
        tag = s.rng.choice(_TAGS[s.language])
        sentences.append(f"{left}{tag}{right}{s.phrase()}{left}{s.spot()}{right}{s.of(' ', '')}")
    return s.page([p("".join(sentences[i : i + 4])) for i in range(0, len(sentences), 4)])


def doubled_names(s: Setting) -> Page:
    """Prose whose entities were escaped twice: the reader sees &quot; and &nbsp;."""
    texts = []
    for sentence in s.say(8, 14):
        said = s.of(f"&ldquo;{sentence}&rdquo; &mdash; it&#39;s so", f"&ldquo;{sentence}&rdquo;&mdash;&mdash;")
        texts.append(
            s.rng.choice(
                (
                    said,
                    sentence.replace(" ", "&nbsp;") if s.en else sentence.replace("，", "，&nbsp;&nbsp;"),
                    f"&lt;p&gt;{sentence}&lt;/p&gt;&lt;br /&gt;",
                )
            )
        )
    return s.page(
        [p(s.join(texts[i : i + 5])) for i in range(0, len(texts), 5)],
        traces=dict.fromkeys(("&nbsp;", "&ldquo;", "&mdash;", "&lt;", "&#39;"), 0),
    )


def doubled_numbers(s: Setting) -> Page:
    """Characters as the numbers of entities, escaped twice: &#20320;&#22909;."""
    texts = []
    for sentence in s.say(8, 14):
        keep = 0.6 if s.en else 0.15
        texts.append("".join(c if c == " " or s.rng.random() < keep else f"&#{ord(c)};" for c in sentence))
    return s.page([p(s.join(texts[i : i + 5])) for i in range(0, len(texts), 5)], traces={"&#": 0})
