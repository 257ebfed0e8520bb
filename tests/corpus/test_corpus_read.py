"""Readers: what each format gives, and that damage costs the damaged thing only."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_pages import CHINESE, ENGLISH, html, raw_record, read, record, write_warc

from fledge.core.errors import ConfigError
from fledge.corpus.extraction.extract import extract
from fledge.corpus.pages import Found
from fledge.corpus.reading.charset import decode
from fledge.corpus.reading.inputs import discover
from fledge.corpus.reading.read import split_text


def text_of(item: Found) -> str:
    page, problem = extract(item)
    assert problem == ""
    return page.text


def test_warc_gives_html_responses_and_names_the_others(tmp_path: Path) -> None:
    offsets = write_warc(
        tmp_path / "a.warc.gz",
        [
            raw_record("warcinfo", "", b"software: test\r\n"),
            record("http://a.example/1", html(ENGLISH)),
            record("http://a.example/x.png", b"\x89PNG", "image/png"),
            record("http://a.example/gone", html("gone"), status="404 Not Found"),
            raw_record("request", "WARC-Target-URI: http://a.example/1\r\n", b"GET / HTTP/1.1\r\n\r\n"),
            record("http://a.example/2", html(CHINESE)),
        ],
    )
    found, refused = read(tmp_path / "a.warc.gz")
    assert [item.url for item in found] == ["http://a.example/1", "http://a.example/2"]
    assert [item.offset for item in found] == [offsets[1], offsets[5]]
    assert found[0].source == "a.warc.gz"
    assert [(item.rule, item.offset, item.error) for item in refused] == [
        ("record_type", offsets[0], False), ("content_type", offsets[2], False),
        ("status", offsets[3], False), ("record_type", offsets[4], False),
    ]  # fmt: skip
    assert CHINESE in text_of(found[1])
    assert "Home" not in text_of(found[1])


def test_truncated_warc_keeps_what_came_before(tmp_path: Path) -> None:
    records = [record(f"http://a.example/{i}", html(ENGLISH * 3 + str(i))) for i in range(4)]
    path = tmp_path / "a.warc.gz"
    offsets = write_warc(path, records)
    path.write_bytes(path.read_bytes()[: offsets[3] + 150])
    found, refused = read(path)
    assert [item.url[-1] for item in found] == ["0", "1", "2"]
    assert len(refused) == 1
    assert refused[0].error
    assert refused[0].rule in ("truncated", "damaged")
    assert refused[0].offset in (offsets[2], offsets[3])


@pytest.mark.parametrize("name", ["a.warc.gz", "a.warc"])
def test_damage_in_the_middle_costs_one_record(tmp_path: Path, name: str) -> None:
    records = [record(f"http://a.example/{i}", html(ENGLISH + str(i))) for i in range(5)]
    path = tmp_path / name
    offsets = write_warc(path, records)
    data = bytearray(path.read_bytes())
    place = offsets[2] + (40 if name.endswith(".gz") else 0)
    data[place : place + 30] = b"\xff" * 30
    path.write_bytes(bytes(data))
    found, refused = read(path)
    assert {item.url[-1] for item in found} >= {"0", "1", "3", "4"}
    assert [item.error for item in refused] == [True]


def test_json_lines_name_line_and_offset(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": ENGLISH, "url": "http://a.example"}), "{broken", "[1]", json.dumps({"body": "x"}), "",
        json.dumps({"text": CHINESE}, ensure_ascii=False), json.dumps({"content": ["one", "two"]}),
    ]  # fmt: skip
    data = "\n".join(lines).encode()
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(data))
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        found, refused = read(tmp_path / name)
        assert [item.content for item in found] == [ENGLISH, CHINESE, "one\ntwo"]
        assert [item.rule for item in refused] == ["malformed_line", "not_an_object", "no_text"]
        assert f"{name}:2:" in refused[0].detail
        assert data[refused[0].offset :].startswith(b"{broken")
        assert "body" in refused[2].detail


def test_truncated_gzip_of_json_lines_keeps_whole_lines(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"{os.urandom(40).hex()} {i}"}) for i in range(3000)]
    data = gzip.compress("\n".join(rows).encode(), mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    found, refused = read(tmp_path)
    assert len(found) > 1000
    assert [item.content for item in found] == [json.loads(row)["text"] for row in rows[: len(found)]]
    assert [item.rule for item in refused] == ["truncated"]
    assert f":{len(found) + 1}:" in refused[0].detail


def test_parquet_rows_and_a_damaged_file(tmp_path: Path) -> None:
    table = pa.table({"text": [ENGLISH, None, CHINESE], "url": ["u1", "u2", "u3"], "other": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nothing")
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "c.parquet")
    found, refused = read(tmp_path)
    assert [(item.offset, item.url) for item in found] == [(0, "u1"), (2, "u3")]
    assert [(item.rule, item.source) for item in refused] == [
        ("no_text", f"{tmp_path.name}/a.parquet"), ("damaged", f"{tmp_path.name}/b.parquet"),
        ("no_text", f"{tmp_path.name}/c.parquet"),
    ]  # fmt: skip


def test_a_folder_of_notes(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "deep" / "er").mkdir(parents=True)
    (notes / ".git").mkdir()
    (notes / ".git" / "config").write_text("hidden")
    (notes / "a.txt").write_text(ENGLISH)
    (notes / "deep" / "b.md").write_text("# 标题\n\n" + CHINESE)
    (notes / "deep" / "er" / "c.html").write_bytes(html(CHINESE))
    (notes / "photo.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    (notes / "LICENSE").write_text(ENGLISH)
    (notes / "table.csv").write_text("a,b")
    (notes / "empty.txt").write_text("")
    found, refused = read(notes)
    assert [item.source for item in found] == [
        "notes/LICENSE", "notes/a.txt", "notes/deep/b.md", "notes/deep/er/c.html", "notes/empty.txt",
    ]  # fmt: skip
    assert [(item.source, item.rule) for item in refused] == [
        ("notes/photo.txt", "binary"), ("notes/table.csv", "unsupported"),
    ]  # fmt: skip
    assert discover([str(notes)], 1).hidden == 1


def test_inputs_by_glob_and_a_missing_one(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.md"):
        (tmp_path / name).write_text(ENGLISH)
    found, _ = read(str(tmp_path / "*.txt"))
    assert [item.source for item in found] == ["a.txt", "b.txt"]
    with pytest.raises(ConfigError, match="nothing-here"):
        discover([str(tmp_path / "nothing-here*")], 1)


def test_two_inputs_of_one_name_keep_their_documents_apart(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder / "notes").mkdir(parents=True)
        (tmp_path / folder / "notes" / "a.txt").write_text(ENGLISH)
    found, _ = read(tmp_path / "x" / "notes", tmp_path / "y" / "notes")
    assert [item.source for item in found] == ["notes/a.txt", "notes~2/a.txt"]
    assert extract(found[0])[0].id != extract(found[1])[0].id


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16", "utf-8-sig", "iso-2022-jp"])
def test_encodings(encoding: str) -> None:
    text = "村子后面的山上有一條小河。" if encoding != "iso-2022-jp" else "川は山から海へ流れます。"
    text = text.replace("后", "後").replace("条", "條") * 20
    data = text.encode(encoding)
    assert decode(data, declared=encoding if encoding == "iso-2022-jp" else "")[0] == text
    # A header that names another encoding does not spoil valid UTF-8; a nonsense name is passed over.
    assert decode(text.encode("utf-8"), declared="iso-8859-1")[0] == text
    assert decode(data, declared="x-no-such-charset" if encoding != "iso-2022-jp" else encoding)[0] == text


def test_bytes_of_no_encoding_go_to_the_ledger() -> None:
    noise = bytes((i * 37 + i // 7 * 11) % 256 or 1 for i in range(128, 4000))
    text, _ = decode(b"\xff\xfe\xfd" + noise + b"\x81\x8d\x8f\x90\x9d" * 50, declared="utf-8")
    page, problem = extract(Found("a", 0, "html", noise * 2, charset="utf-8"))
    assert text is None or "\ufffd" not in text or text.count("\ufffd") <= len(text) // 500
    assert problem in ("", "encoding", "empty")
    assert page.id


def test_meta_charset_is_read() -> None:
    body = html(CHINESE, charset="gb18030")
    page, problem = extract(Found("a", 0, "html", body))
    assert problem == ""
    assert CHINESE in page.text
    assert page.meta["encoding"] == "gb18030"


def test_main_text_keeps_tables_and_the_lines_of_code() -> None:
    body = (
        "<html><head><title>函数</title></head><body><nav><ul><li><a href=/>首页</a></li></ul></nav>"
        "<article><h1>函数</h1>"
        "<p>下面是一个函数，它把两个数相加。</p>"
        "<pre><code>def add(a, b):\n    if a:\n        return a + b\n\n    return b"
        "</code></pre><table><tr><th>名字</th><th>年龄</th></tr><tr><td>小明</td><td>12</td></tr></table>"
        "<p>Done.</p></article><footer>版权所有</footer></body></html>"
    )
    text = text_of(Found("a", 0, "html", body.encode()))
    assert "def add(a, b):\n    if a:\n        return a + b\n\n    return b" in text
    assert "小明" in text
    assert "12" in text
    assert "首页" not in text
    assert "版权" not in text
    assert extract(Found("a", 0, "html", body.encode()))[0].meta["title"] == "函数"


def test_lists_are_main_text() -> None:
    items = "".join(f"<li>Step {i}: put the {i}. stone on the wall and wait.</li>" for i in range(4))
    for tag in ("ul", "ol"):
        body = f"<html><body><main><p>{ENGLISH}</p><{tag}>{items}</{tag}><p>After.</p></main></body></html>"
        assert "Step 3: put the 3. stone" in text_of(Found("a", 0, "html", body.encode())), tag


def test_long_text_is_cut_at_blank_lines_and_nothing_is_lost() -> None:
    text = "\n\n".join(f"{ENGLISH} {i}" for i in range(200))
    pieces = list(split_text([text], 5000))
    assert "".join(piece for _, piece in pieces) == text
    assert all(text[offset : offset + len(piece)] == piece for offset, piece in pieces)
    assert max(len(piece) for _, piece in pieces) <= 7500
    assert all(piece.startswith("\n") for _, piece in pieces[1:])


def test_stdlib_gives_documentation_and_source_without_importing(tmp_path: Path) -> None:
    found, refused = read("python:stdlib", stdlib_characters=200_000)
    again, _ = read("python:stdlib", stdlib_characters=200_000)
    assert found == again
    assert refused == []
    kinds = {item.kind for item in found}
    assert kinds <= {"text", "code"}
    assert all(item.source.startswith("python:stdlib/") for item in found)
    wide = discover(["python:stdlib"], 1_500_000)
    names = [part.label for shard in wide.shards for part in shard.parts]
    assert 100_000 < sum(shard.bytes for shard in wide.shards) <= 1_500_000
    assert not any("/test/" in name or "/idlelib/" in name or "/encodings/" in name for name in names)


def test_real_warc_files_are_read_to_the_last_record(real_data: Path) -> None:
    found, refused = read(real_data / "html" / "warc_fixtures")
    assert len(found) >= 8
    assert {item.rule for item in refused if item.error} <= {"damaged", "truncated", "binary"}
    whole, refused = read(real_data / "html" / "warc_dolma_sample" / "sample-0000.warc.gz")
    assert (len(whole) + len(refused), len(whole)) == (48, 22)
    assert not [item for item in refused if item.error]


def test_poems_with_their_headings_and_records_inside_records(tmp_path: Path) -> None:
    poem = {"title": "静夜思", "author": "李白", "paragraphs": ["床前明月光，", "疑是地上霜。"], "id": 1}
    (tmp_path / "tang.json").write_text(json.dumps([poem, {"author": "无", "lines": []}]), encoding="utf-8")
    chapters = [{"chapter": "一", "paragraphs": ["甲", "乙"]}, 3]
    book = {"title": "书", "content": [{"title": "卷一", "content": chapters}]}
    (tmp_path / "book.json").write_text(json.dumps(book), encoding="utf-8")
    (tmp_path / "other.json").write_text(json.dumps({"a": {"paragraphs": ["x"]}}), encoding="utf-8")
    found, refused = read(tmp_path, heading_keys=["title", "chapter", "author"])
    assert {item.source.rpartition("/")[2]: item.content for item in found} == {
        "tang.json": "静夜思\n李白\n\n床前明月光，\n疑是地上霜。",
        "book.json": "一\n\n甲\n乙",
    }
    assert found[-1].offset == 0
    assert [item.rule for item in refused] == ["not_an_object", "unsupported", "no_text"]
    assert "book.json:item 0.content.0.content.1: int" in refused[0].detail
    assert read(tmp_path / "tang.json")[0][0].content == "床前明月光，\n疑是地上霜。", "none without the key"


def test_real_classics(real_data: Path) -> None:
    folder = real_data / "text/chinese_classics"
    inputs = folder / "mengxue", folder / "lunyu.json", folder / "tang/poet.tang.0.json"
    found, refused = read(*inputs, heading_keys=["title", "rhythmic", "chapter", "author"])
    assert not refused
    files = {item.source.rpartition("/")[2] for item in found}
    assert {"guwenguanzhi.json", "qianziwen.json", "lunyu.json", "poet.tang.0.json"} <= files
    assert len(found) > 1200
    first = next(item for item in found if "鄭伯克段於鄢" in item.content)
    assert isinstance(first.content, str)
    assert "初，鄭武公娶於申" in first.content
    lunyu = next(item for item in found if item.source.endswith("lunyu.json"))
    assert str(lunyu.content).startswith("学而篇\n\n子曰：“学而时习之")
