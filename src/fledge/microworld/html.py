"""Wraps pages in the HTML of real sites: navigation, cookie banner, side bar, footer, scripts, entities."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import html
import random

from fledge.microworld.page import Block, Page

HOSTS = ("www.tidewater-gazette.example", "notebook.mill-lane.example", "wiki.littleworld.example", "shuwu.example",
         "blog.lantern.example", "www.xiaozhen-bao.example", "school.riverside.example", "zhishi.example")  # fmt: skip
_NAV = {
    "en": ("Home", "News", "People", "Towns", "Learn", "Contact"),
    "zh": ("首页", "新闻", "人物", "城镇", "学习", "联系我们"),
}
_COOKIE = {
    "en": "We use cookies to make this site work better. By continuing you agree to our cookie policy.",
    "zh": "本站使用Cookie以改善体验。继续浏览即表示您同意我们的Cookie政策。",
}
_ACCEPT = {"en": ("Accept all", "Settings"), "zh": ("全部接受", "设置")}
_SIDE = {"en": "Most read", "zh": "热门文章"}
_LINKS = {
    "en": ("How to bake at home", "Ten quiet walks", "Timetable", "Lost and found", "Our readers write", "Weather"),
    "zh": ("在家烘焙", "十条散步路线", "时刻表", "失物招领", "读者来信", "天气预报"),
}
_FOOT = {
    "en": "All rights reserved. Imprint. Privacy policy. Terms of use.",
    "zh": "版权所有。关于我们。隐私政策。使用条款。",
}
_SHARE = {"en": ("Share", "Print", "Subscribe to our newsletter"), "zh": ("分享", "打印", "订阅我们的简报")}


def _block(block: Block) -> str:
    if block.kind == "table":
        head, *rest = block.rows
        rows = ["<tr>" + "".join(f"<th>{_escape(c)}</th>" for c in head) + "</tr>"]
        rows += ["<tr>" + "".join(f"<td>{_escape(c)}</td>" for c in row) + "</tr>" for row in rest]
        return '<table class="data">\n' + "\n".join(rows) + "\n</table>"
    if block.kind == "links":
        return _list([row[0] for row in block.rows], "list")
    if block.kind == "ul":
        return "<ul>\n" + "\n".join(f"<li>{_escape(row[0])}</li>" for row in block.rows) + "\n</ul>"
    if block.kind == "pre":
        return f"<pre><code>{_escape(block.text)}</code></pre>"
    if block.kind == "q":
        return f"<p><strong>{_escape(block.text)}</strong></p>"
    tag = "h2" if block.kind == "h2" else "p"
    return f"<{tag}>{_escape(block.text)}</{tag}>"


def _escape(text: str) -> str:
    return html.escape(text, quote=False).replace("'", "&#39;")


def _list(items: list[str], css: str) -> str:
    return (
        f'<ul class="{css}">'
        + "".join(f'<li><a href="/{i}">{_escape(t)}</a></li>' for i, t in enumerate(items))
        + "</ul>"
    )


def wrap(page: Page, rng: random.Random, charset_meta: str | None) -> str:
    """The whole document. `charset_meta` is what the page says of its encoding; None: it says nothing."""
    language = page.language if page.language in _NAV else "en"
    nav = list(_NAV[language])
    rng.shuffle(nav)
    css, container = rng.choice((("nav", "article"), ("menu", "main"), ("navbar", "section")))
    meta = ""
    if charset_meta:
        meta = rng.choice((f'<meta charset="{charset_meta}">',
                           f'<meta http-equiv="Content-Type" content="text/html; charset={charset_meta}">'))  # fmt: skip
    site = page.url.split("/")[2]
    head = (
        f'<!DOCTYPE html>\n<html lang="{"zh-CN" if page.language == "zh" else page.language}">\n<head>\n{meta}\n'
        f"<title>{_escape(page.title)} | {site}</title>\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>.{css}{{margin:0;padding:{rng.randint(1, 9)}px}} body{{font-family:serif}}</style>\n"
        f"<script>var t={rng.randint(100, 999)};window.dataLayer=window.dataLayer||[];if(t<5){{document.write('x')}}</script>\n"
        "</head>\n"
    )
    body = "\n".join(_block(b) for b in page.blocks)
    main = (
        f'<{container} class="content" id="content">\n<h1>{_escape(page.title)}</h1>\n{body}\n</{container}>'
        if container != "section"
        else f'<main><section class="post">\n<h1>{_escape(page.title)}</h1>\n{body}\n</section></main>'
    )
    cookie = ""
    if rng.random() < 0.7:
        buttons = "".join(f"<button>{t}</button>" for t in _ACCEPT[language])
        cookie = (
            f'<div id="cookie-banner" class="cookie-consent" role="dialog"><p>{_COOKIE[language]}</p>{buttons}</div>\n'
        )
    side = ""
    if rng.random() < 0.7:
        side = f'<aside class="sidebar"><h3>{_SIDE[language]}</h3>{_list(rng.sample(_LINKS[language], 4), "related")}</aside>\n'
    share = f'<div class="share-buttons">{"".join(f"<a href=#>{t}</a>" for t in _SHARE[language])}</div>\n'
    year = rng.randint(2009, 2024)
    return (
        f'{head}<body>\n<header><nav class="{css}">{_list(nav, "links")}</nav></header>\n'
        f"{cookie if rng.random() < 0.5 else ''}{main}\n{side}{share if rng.random() < 0.5 else ''}"
        f'<footer class="footer"><p>&copy; {year} {site}. {_FOOT[language]}</p></footer>\n'
        f"<script>console.log(&quot;done&quot;)</script>\n</body>\n</html>\n"
    )
