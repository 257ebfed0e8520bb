"""A page before it is wrapped in HTML: a title and blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

BlockKind = Literal["p", "h2", "table", "pre", "q", "a", "ul", "links"]


@dataclass(frozen=True)
class Block:
    """A piece of the main text. A table is rows of cells, a list rows of one; everything else is one string."""

    kind: BlockKind
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()

    def plain(self) -> str:
        if self.rows:
            return "\n".join("\t\t".join(row) for row in self.rows)
        return self.text


@dataclass(frozen=True)
class Page:
    """What a reader would call the page. `text` is what extraction should find."""

    kind: str
    language: str
    title: str
    blocks: tuple[Block, ...]
    defect: str | None = None
    duplicate_of: str | None = None
    charset: str | None = None  # None: chosen when it is wrapped
    url: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        parts = [self.title] + [block.plain() for block in self.blocks]
        return "\n\n".join(parts)


def p(text: str) -> Block:
    return Block("p", text)
