"""Pages and files that the tests of the corpus read, written here by hand, small, and sound unless said otherwise; and
how they are read."""

from __future__ import annotations

import gzip
from pathlib import Path

from fledge.corpus.pages import Found, Refused
from fledge.corpus.reading.inputs import ReadConfig, discover
from fledge.corpus.reading.read import read_part

ENGLISH = (
    "The river rises in the hills behind the village and runs for forty miles to the sea. In spring the meadows "
    "along it stand under water, and the children of the farms go to school by boat. An old mill, built of grey "
    "stone, marks the place where two roads meet; its wheel has not turned for many years, but the miller's family "
    "still lives there and sells bread on market days. Travellers who stay a night are told about the great flood."
)
CHINESE = (
    "村子后面的山上有一条小河，流过四十里地才到海边。春天河水上涨，两岸的草地都淹在水里，农家的孩子坐船去上学。"
    "两条路相交的地方有一座灰色石头砌成的老磨坊，水轮已经多年不转了，磨坊主一家还住在那里，赶集的日子卖面包。"
    "过路的客人住上一夜，主人就给他们讲那场大水的故事。"
)
TASKS = (
    "Lina keeps nineteen brown hens behind the station and each of them lays five eggs a week. How many eggs does she "
    "carry to the market after six weeks?"
)


def html(text: str, title: str = "A page", charset: str = "utf-8", declare: bool = True) -> bytes:
    """A page with navigation and footer around paragraphs of text."""
    paragraphs = "".join(f"<p>{part}</p>" for part in text.split("\n"))
    meta = f'<meta charset="{charset}">' if declare else ""
    page = (
        f"<!doctype html><html><head>{meta}<title>{title}</title></head><body><nav><a href='/'>Home</a></nav>"
        f"<main><h1>{title}</h1>{paragraphs}</main><footer>Imprint, all rights reserved</footer></body></html>"
    )
    return page.encode(charset)


def record(url: str, body: bytes, content_type: str = "text/html; charset=utf-8", status: str = "200 OK") -> bytes:
    """One response record of WARC 1.0."""
    http = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    fields = f"WARC-Target-URI: {url}\r\nContent-Type: application/http; msgtype=response\r\n"
    return raw_record("response", fields, http)


def raw_record(kind: str, fields: str, block: bytes) -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\n{fields}Content-Length: {len(block)}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


def write_warc(path: Path, records: list[bytes]) -> list[int]:
    """A gzip member a record; returns their offsets."""
    offsets, data = [], b""
    for item in records:
        offsets.append(len(data))
        data += gzip.compress(item, mtime=0) if path.suffix == ".gz" else item
    path.write_bytes(data)
    return offsets


def read(*inputs: Path | str, **config: object) -> tuple[list[Found], list[Refused]]:
    """What is in files and folders, and what could not be read of them."""
    items = [
        item
        for shard in discover([str(path) for path in inputs], 200_000).shards
        for part in shard.parts
        for item in read_part(part, ReadConfig.model_validate(config))
    ]
    return [i for i in items if isinstance(i, Found)], [i for i in items if isinstance(i, Refused)]


def variant(text: str, number: int) -> str:
    """Another page of the same kind of prose: every sentence gets words of its own."""
    parts = [part for part in text.replace("。", ".").split(".") if part.strip()]
    names = [f"{_NAMES[(number + i) % len(_NAMES)]} {number * 7 + i}" for i in range(len(parts))]
    return ". ".join(f"{part.strip()} {name}" for part, name in zip(parts, names, strict=True))


_NAMES = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "juniper", "kelp")
