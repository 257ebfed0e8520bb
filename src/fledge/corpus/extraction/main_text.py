"""The main content of a page: with resiliparse, or with trafilatura."""

from __future__ import annotations

import re
from typing import Any

_MOST_LISTS = 2000  # of a page that are looked at
# Parsing and extraction take the square of the depth (a second at 5,000, minutes in a hostile megabyte); browsers end
# at 512. Looking costs a tenth of the extraction, so pages that cannot be slow are let pass.
_DEEPEST = 256
_MANY_TAGS = 2000
_DEEP = ">".join(["*"] * _DEEPEST)
_ITEM, _ITEM_END = re.compile(r"<li((?:\s[^>]*)?)>"), re.compile("</li>")
_LINKED = 0.4  # a list with a larger share of its text in links is navigation


def main_text(html: str) -> tuple[str, str]:
    """Main content as plain text with its lines, and the title, with resiliparse.

    Raises `ValueError` for a page that it cannot read in sensible time.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html)
    if html.count("<") > _MANY_TAGS and tree.body is not None and tree.body.query_selector(_DEEP) is not None:
        raise ValueError(f"elements in elements, more than {_DEEPEST} deep")
    _keep_prose_lists(tree)
    text = extract_plain_text(tree, main_content=True, alt_texts=False, preserve_formatting=True)
    return text, _title(tree)


def _keep_prose_lists(tree: Any) -> None:
    """Turn bulleted lists that are not lists of links into blocks that begin with a dash.

    Resiliparse takes every ``ul`` for navigation and would drop it from the main content. Lists inside lists come
    first. The items are renamed in the list's own HTML: to touch each as an object costs as much as the extraction.
    Resiliparse's collections are sliced, not iterated, where a step begins at the front (400 items: 0.75 s, not 2 ms).
    """
    if tree.body is None:
        return
    for node in reversed(tree.body.query_selector_all("ul")[:_MOST_LISTS]):
        length = len(node.text.strip())
        linked = sum(len(link.text) for link in node.query_selector_all("a")[:]) if length else 0
        if length == 0 or linked > _LINKED * length:
            continue
        block = tree.create_element("div")
        for name in ("class", "id", "style", "hidden", "role"):  # what marks boilerplate
            if name in node.attrs:
                block[name] = node[name]
        block.inner_html = _ITEM_END.sub("</div>", _ITEM.sub(r"<div\1>- ", node.inner_html))
        node.parent.replace_child(block, node)


def _title(tree: Any) -> str:
    return " ".join((tree.title or "").split())[:300]


def careful_text(html: str) -> tuple[str, str]:
    """Main content and title with trafilatura: tables and code kept, comments left out."""
    import logging

    import trafilatura
    from resiliparse.parse.html import HTMLTree

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return trafilatura.extract(html, include_comments=False, include_tables=True) or "", _title(HTMLTree.parse(html))
