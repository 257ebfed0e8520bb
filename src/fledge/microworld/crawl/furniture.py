"""Pages that are all frame and no picture: menus, notices, lists, teasers, repeated parts, notes that there is nothing."""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

from fledge.microworld import lexicon
from fledge.microworld.crawl.setting import Setting
from fledge.microworld.page import Block, Page, p

_MENU = {
    "en": ("Home", "About us", "Services", "Products", "Blog", "Contact", "Careers", "Support", "FAQ", "Site map", "Log in", "Register",
           "My account", "Cart", "Wishlist", "Search", "Newsletter", "Imprint", "Help", "Language", "Back to top", "Next", "Previous", "Share", "Print"),
    "zh": ("首页", "关于我们", "产品中心", "服务", "新闻动态", "联系我们", "招聘", "帮助", "网站地图", "登录", "注册", "我的账户", "购物车", "收藏", "搜索",
           "订阅", "友情链接", "返回顶部", "下一页", "上一页", "分享", "打印", "意见反馈", "客户端下载", "设为首页"),
}  # fmt: skip
_COOKIE = {
    "en": ("We use cookies to personalise content and to analyse our traffic.", "By clicking Accept all you consent to the use of all cookies.",
           "You can change your preferences at any time in the cookie settings.", "Strictly necessary cookies cannot be switched off.",
           "We share information about your use of our site with our partners.", "Marketing cookies are used to track visitors across websites.",
           "Read our cookie policy and our privacy policy for details.", "Some cookies are placed by third parties that appear on our pages.",
           "Statistic cookies help website owners understand how visitors behave.", "Your consent applies to all domains of this network."),
    "zh": ("本网站使用Cookie来分析流量并为您提供个性化内容。", "点击“全部接受”即表示您同意使用所有Cookie。", "您可以随时在Cookie设置中更改偏好。", "必要的Cookie无法关闭。",
           "我们会与合作伙伴共享您使用本站的信息。", "营销类Cookie用于跨网站跟踪访客。", "详情请阅读我们的Cookie政策和隐私政策。", "部分Cookie由第三方放置。",
           "统计类Cookie帮助网站了解访客的行为。", "您的同意适用于本网络的所有域名。"),
}  # fmt: skip
_LEGAL = {
    "en": ("All rights reserved.", "No part of this site may be reproduced without written permission.", "Terms of use.", "Privacy policy.",
           "We accept no liability for the content of external links.", "The operators of linked pages are responsible for their content.",
           "All trademarks belong to their owners.", "This site is protected by copyright.", "Use of this site constitutes acceptance of our terms.",
           "The information is provided without warranty of any kind.", "Best viewed in full screen."),
    "zh": ("版权所有，未经许可不得转载。", "使用条款。", "隐私政策。", "本站不对外部链接的内容承担责任。", "所有商标归其所有者所有。", "免责声明：本站信息仅供参考。",
           "如有侵权请联系我们删除。", "使用本站即表示您接受本站条款。", "建议使用最新版本的浏览器访问。", "本站内容均来自网络，仅供学习交流。"),
}  # fmt: skip


def menus(s: Setting) -> Page:
    """What stands around an article, without the article."""
    words = s.rng.sample(_MENU[s.language], s.rng.randint(10, 20))
    if s.rng.random() < 0.4:
        return s.page([p(s.rng.choice((" | ", " > ", " ")).join(words))], words[0])
    return s.page([p(word) for word in words], words[0])


def cookie_notice(s: Setting) -> Page:
    """The banner is all that was saved."""
    said = s.rng.sample(_COOKIE[s.language], s.rng.randint(4, 8))
    buttons = s.of("Accept all  Reject all  Settings", "全部接受  全部拒绝  设置")
    return s.page([p(s.join(said)), p(buttons)], s.of("Cookie settings", "Cookie设置"))


def legal_footer(s: Setting) -> Page:
    said = s.rng.sample(_LEGAL[s.language], s.rng.randint(5, 9))
    year = s.rng.randint(2001, 2024)
    return s.page(
        [p(f"© {year} {s.spot()}"), p(s.join(said)), p(" | ".join(s.rng.sample(_MENU[s.language], 6)))],
        s.of("Imprint", "声明"),
    )


def same_line(s: Setting) -> Page:
    """One line, again and again, within a page or alone."""
    line = s.say(1, 1)[0]
    count = s.rng.randint(6, 20)
    blocks = [p(line)] * count
    for _ in range(s.rng.randint(0, count // 4)):
        blocks.insert(s.rng.randrange(len(blocks)), s.told(1, 2))
    return s.page(blocks, traces={line: 1})


def between_lines(s: Setting) -> Page:
    """A call to act stands after every short paragraph."""
    line = s.of(f"Sign up for our newsletter and win a {s.noun()}!", f"立即订阅，免费获得{s.noun()}！")
    blocks = []
    for _ in range(s.rng.randint(8, 14)):
        blocks += [s.told(1, 1), p(line)]
    return s.page(blocks, traces={line: 1})


def block_of_lines(s: Setting) -> Page:
    """A block of three to five lines, several times."""
    lines = s.say(3, 5)
    return s.page([p(line) for _ in range(s.rng.randint(3, 8)) for line in lines], traces=dict.fromkeys(lines, 1))


def doubled_page(s: Setting) -> Page:
    """The whole text twice to five times: a template that calls itself."""
    parts = [s.join(s.say(3, 6)) for _ in range(s.rng.randint(1, 3))]
    return s.page([p(part) for _ in range(s.rng.randint(2, 5)) for part in parts], traces=dict.fromkeys(parts, 1))


def one_paragraph(s: Setting) -> Page:
    """One paragraph returns between others, and is most of the page in the end."""
    part = s.join(s.say(4, 7))
    blocks = []
    for _ in range(s.rng.randint(3, 6)):
        blocks += [p(part), s.told(1, 3)] if s.rng.random() < 0.5 else [p(part)]
    return s.page(blocks, traces={part: 1})


def few_words(s: Setting) -> Page:
    words = s.pick(
        (
            f"A {s.phrase()}.",
            f"{s.noun().capitalize()}, {s.rng.randint(1, 99)} coins",
            f"Photo: the {s.spot()}",
            "Thanks!",
            f"See the {s.noun()}.",
        ),
        (f"{s.phrase()}。", f"{s.noun()}，{s.rng.randint(1, 99)}元", f"图：{s.spot()}", "谢谢！", "如图。"),
    )
    return s.page([p(words)], s.of(f"Item {s.rng.randint(1, 9999)}", f"第{s.rng.randint(1, 9999)}项"))


def only_a_date(s: Setting) -> Page:
    year, month, day = s.rng.randint(2005, 2024), s.rng.randint(1, 12), s.rng.randint(1, 28)
    return s.page(
        [p(s.of(f"Posted on {day}.{month}.{year}", f"发布于{year}年{month}月{day}日"))],
        s.of(f"Image {day}{month}", f"图片{day}{month}"),
    )


_MORE = {
    "en": ("Read more", "Read more...", "Continue reading", "[...]", "... more", "Read more »"),
    "zh": ("展开", "展开全部", "阅读全文", "更多", "查看更多", "……"),
}


def _cut(s: Setting) -> str:
    """The beginning of a paragraph and an invitation to see the rest."""
    text = s.join(s.say(1, 2))
    text = text[: s.rng.randint(len(text) // 2, len(text) - 2)].rstrip(" .,。，")
    return f"{text}{s.of('... ', '……')}{s.rng.choice(_MORE[s.language])}"


def teasers(s: Setting) -> Page:
    """The front page of a journal: the beginnings of many articles."""
    return s.page([p(_cut(s)) for _ in range(s.rng.randint(6, 12))], s.of("Latest articles", "最新文章"))


def cut_article(s: Setting) -> Page:
    """An article that ends after its first sentences."""
    return s.page([p(s.join(s.say(1, 1))), p(_cut(s))])


def titled_teasers(s: Setting) -> Page:
    """The same with a title above each."""
    blocks = []
    for _ in range(s.rng.randint(4, 8)):
        blocks += [Block("h2", s.title()), p(_cut(s))]
    return s.page(blocks)


def bullets(s: Setting) -> Page:
    """Nothing but bulleted words."""
    sign = s.rng.choice("•-*·●■")
    return s.page([p(f"{sign} {s.phrase()}") for _ in range(s.rng.randint(12, 30))])


def html_bullets(s: Setting) -> Page:
    """The same as a list of HTML, without links."""
    return s.page([Block("ul", rows=tuple((s.phrase(),) for _ in range(s.rng.randint(12, 30))))])


def links(s: Setting) -> Page:
    """Names with the addresses that they lead to."""
    rows = [
        f"{s.phrase()} http://{s.rng.choice(('www', 'shop', 'info'))}.site{s.rng.randint(1, 999)}.example/{s.rng.randint(1, 9999)}"
        for _ in range(s.rng.randint(12, 28))
    ]
    return s.page(list(map(p, rows)), s.of("Links", "友情链接"))


def linked_titles(s: Setting) -> Page:
    """An archive: titles as links, with dates or counts."""
    rows = []
    for _ in range(s.rng.randint(14, 30)):
        month = s.rng.choice(lexicon.MONTHS)
        year = s.rng.randint(2005, 2024)
        rows.append(
            (s.of(f"{month[0]} {year} ({s.rng.randint(1, 60)})", f"{year}年{month[1]}（{s.rng.randint(1, 60)}）"),)
        )
    return s.page([Block("links", rows=tuple(rows))], s.of("Archive", "归档"))


def prices(s: Setting) -> Page:
    """Goods and prices of a shop."""
    rows = []
    for _ in range(s.rng.randint(12, 28)):
        price = f"{s.rng.uniform(1, 900):.2f}"
        rows.append(p(s.of(f"{s.phrase()} ${price} Add to cart", f"{s.phrase()} ¥{price} 加入购物车")))
    return s.page(rows, s.of("Shop", "商城"))


def construction(s: Setting) -> Page:
    return s.page([p(s.pick(
        ("This page is under construction. Please come back later.", "Coming soon! We are working hard on our new site.", "Our site is being rebuilt. Thank you for your patience.",
         "Nothing here yet."),
        ("网站建设中，敬请期待。", "本页面正在建设中，请稍后再来。", "新网站即将上线，感谢您的耐心等待。", "内容更新中……"),
    ))], s.of("Coming soon", "建设中"))  # fmt: skip


def missing(s: Setting) -> Page:
    """The page of an error, sent as if it were none."""
    return s.page([p(s.pick(
        ("Sorry, the page you are looking for could not be found. It may have been moved or deleted. Go back to the home page.",
         "Error 404. The requested URL was not found on this server.", "Oops! Something went wrong. Please try again later.", "403 Forbidden. You do not have access to this resource."),
        ("抱歉，您访问的页面不存在或已被删除。返回首页。", "404错误：找不到您请求的页面。", "系统繁忙，请稍后再试。", "您没有权限访问此页面，请先登录。"),
    ))], s.of("Page not found", "页面不存在"))  # fmt: skip


def parked(s: Setting) -> Page:
    """A domain for sale; a page that wants a login or a script."""
    name = f"{s.rng.choice(lexicon.NOUNS)[0]}{s.rng.randint(1, 999)}.example"
    return s.page([p(s.pick(
        (f"The domain {name} may be for sale. Click here to inquire about this domain.", "Please enable JavaScript to continue. Checking your browser before you proceed.",
         "Log in to see this content. Forgot your password? Register now.", f"Welcome to {name}. This is the default page of the web server. It works!"),
        (f"域名{name}正在出售，有意者请联系。", "请启用JavaScript后继续访问，正在检查您的浏览器。", "登录后才能查看此内容。忘记密码？立即注册。", f"恭喜，站点{name}创建成功！这是默认页面。"),
    ))], name)  # fmt: skip


def hits(s: Setting) -> Page:
    """What a search engine of a site shows: number of hits, titles, cut sentences, addresses."""
    word = s.noun()
    total = s.rng.randint(20, 9000)
    blocks = [p(s.of(f'Results 1-10 of about {total} for "{word}"', f"找到约{total}条与“{word}”相关的结果"))]
    for _ in range(s.rng.randint(6, 10)):
        text = s.say(1, 1)[0]
        blocks += [
            p(f"{word} - {s.title()}"),
            p(text[: max(8, len(text) * 2 // 3)] + s.of(" ...", "……")),
            p(f"www.site{s.rng.randint(1, 999)}.example/{s.rng.randint(1, 999)}.html"),
        ]
    return s.page([*blocks, p(s.of("1 2 3 4 5 Next", "1 2 3 4 5 下一页"))], word)


def categories(s: Setting) -> Page:
    """A category of a forum or shop: titles, authors, counts."""
    rows = []
    for _ in range(s.rng.randint(10, 20)):
        n, m, who = s.rng.randint(0, 300), s.rng.randint(0, 9000), s.rng.randint(1, 999)
        rows.append(
            p(
                s.of(
                    f"{s.title()} - {n} replies, {m} views, last post by user{who}",
                    f"{s.title()} 回复{n} 浏览{m} 最后发表：用户{who}",
                )
            )
        )
    return s.page(rows, s.of("Forum", "论坛列表"))


def no_hits(s: Setting) -> Page:
    word = s.phrase()
    tips = s.of(
        ("Check your spelling.", "Try more general words.", "Try fewer words."),
        ("请检查拼写。", "请尝试其他关键词。", "请减少关键词。"),
    )
    return s.page(
        [p(s.of(f'Your search for "{word}" returned 0 results.', f"没有找到与“{word}”相关的内容。")), *map(p, tips)],
        s.of("Search", "搜索结果"),
    )
