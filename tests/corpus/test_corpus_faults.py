"""Hostile and broken inputs: each is counted with its reason, and everything else arrives."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import tracemalloc
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_pages import CHINESE, ENGLISH, html, read, variant

from fledge.core.artefact import read_manifest
from fledge.corpus.pages import Found, Refused
from fledge.corpus.reading.inputs import ReadConfig, discover
from fledge.corpus.reading.lines import read_lines
from fledge.corpus.reading.read import read_part, split_text
from fledge.corpus.tables import rows
from fledge.stages import corpus

ROW = json.dumps({"text": ENGLISH}).encode() + b"\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.txt", "a.txt.zst"])
def test_a_line_of_200_megabytes_is_never_held(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    piece = b"x" * (1 << 20)
    with path.open("wb") as raw:
        packed = zstandard.ZstdCompressor(level=1).stream_writer(raw) if name.endswith(".zst") else raw
        packed.write(ROW)
        for _ in range(200):
            packed.write(piece)
        packed.write(b"\n" + ROW)
        packed.flush(*([zstandard.FLUSH_FRAME] if packed is not raw else []))  # type: ignore[arg-type]
    tracemalloc.start()
    found, refused = read(path, max_record_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (80 << 20 if name.endswith(".zst") else 12 << 20)  # zstd unpacks a kilobyte to 32 MB at once
    assert [(item.rule, item.offset, item.error) for item in refused] == [("too_large", len(ROW), True)]
    assert str(200 << 20) in refused[0].detail
    text = "".join(str(item.content) for item in found)
    assert text.count("The river rises") == 2


def test_lines_at_the_limit_and_at_the_borders_of_pieces(tmp_path: Path) -> None:
    given = [b"a" * size for size in (0, 1, 65_535, 65_536, 65_537, 131_072, 99, 100)]
    (tmp_path / "a").write_bytes(b"\n".join(given))
    lines = list(read_lines(tmp_path / "a", 65_536))
    assert [line.length for line in lines] == [len(line) for line in given]
    assert [line.data for line in lines] == [line if len(line) <= 65_536 else None for line in given]
    assert [line.number for line in lines] == list(range(1, 9))
    data = (tmp_path / "a").read_bytes()
    assert all(data[line.offset :].startswith(line.data) for line in lines if line.data is not None)
    assert [line.ended for line in lines] == [True] * 7 + [False]


def test_a_packed_bomb_is_refused_record_by_record(tmp_path: Path) -> None:
    bomb = ROW + b"0" * 50_000_000 + b"\n" + ROW
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(bomb, 1))
    (tmp_path / "b.html.gz").write_bytes(gzip.compress(bomb, 1))
    (tmp_path / "c.html").write_bytes(html(ENGLISH))
    found, refused = read(tmp_path, max_record_bytes=1_000_000)
    assert [item.source.rpartition("/")[2] for item in found] == ["a.jsonl.gz", "a.jsonl.gz", "c.html"]
    assert [(item.source.rpartition("/")[2], item.rule) for item in refused] == [
        ("a.jsonl.gz", "too_large"), ("b.html.gz", "too_large"),
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_a_long_text_is_read_in_pieces_and_nothing_is_lost(tmp_path: Path, encoding: str) -> None:
    """Longer than what is decoded at once; pages end where they would in one piece."""
    text = "\n".join(f"{i} {CHINESE}" for i in range(18_000))
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    found, refused = read(path)
    assert refused == []
    assert [(item.offset, item.content) for item in found] == list(split_text([text], 20_000))
    assert path.stat().st_size > 4 << 20
    path.write_bytes(text.encode(encoding) + b"\xff\xfe\xfd")
    found, _ = read(path)
    assert "\ufffd" in str(found[-1].content)
    assert len("".join(str(item.content) for item in found)) >= len(text)


def test_invalid_utf_8_and_nul_bytes_cost_their_line(tmp_path: Path) -> None:
    lines = [ROW, b'{"text": "caf\xe9 \xff"}\n', b'{"text": "a\0b"}\n', b'{"text": "a\\u0000b"}\n', b"\0\n", ROW]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "b.txt").write_bytes(b"\0" * 100 + ENGLISH.encode())
    (tmp_path / "c.html").write_bytes(bytes(range(1, 256)) * 40)
    (tmp_path / "d.txt").write_bytes(ENGLISH.encode() * 20 + b"\xe9\0\xff")
    found, refused = read(tmp_path)
    assert [item.content for item in found[:3]] == [ENGLISH, "a\0b", ENGLISH]  # control characters go at extraction
    assert Counter(item.rule for item in refused) == {"encoding": 1, "malformed_line": 2, "binary": 2}
    assert all(item.error for item in refused)
    assert str(found[3].content).startswith(ENGLISH)


def test_parquet_costs_what_is_spoiled(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{i} {ENGLISH}" for i in range(3000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=1000, compression="none", use_dictionary=False)
    facts = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[facts.data_page_offset : facts.data_page_offset + 200] = b"\xff" * 200
    path.write_bytes(bytes(data))
    found, refused = read(path)
    assert [item.offset for item in found] == [*range(1000), *range(2000, 3000)]
    assert [(item.rule, item.offset) for item in refused] == [("damaged", 1000)]
    assert "(1000)" in refused[0].detail
    raw = pa.array([b"good", b"\xff\xfe bad", b"x" * 5000, b"fine"])
    offsets = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": offsets}), tmp_path / "b.parquet")
    found, refused = read(tmp_path / "b.parquet", max_record_bytes=1000)
    assert [item.content for item in found] == ["good", "fine"]
    assert [(item.rule, item.offset) for item in refused] == [("encoding", 1), ("too_large", 2)]


def test_a_file_that_is_gone_or_may_not_be_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.warc.gz", "d.parquet", "e.html", "f.jsonl"):
        (tmp_path / name).write_bytes(ROW)
    shards = discover([str(tmp_path)], 1).shards
    for name in ("b.txt", "c.warc.gz", "d.parquet", "e.html", "f.jsonl"):
        (tmp_path / name).unlink()
    assert shards[0].bytes == 6 * len(ROW)
    items = [item for part in shards[0].parts for item in read_part(part, ReadConfig())]
    assert isinstance(items[0], Found)
    assert [(item.rule, item.error) for item in items[1:] if isinstance(item, Refused)] == [("file", True)] * 5


def test_a_folder_that_may_not_be_listed_is_counted() -> None:
    """Root may read everything, so somebody else looks."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "closed").mkdir()
        for name in ("closed/a.txt", "b.txt", "c.txt"):
            (folder / name).write_text("text")
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        (folder / "b.txt").chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            inputs = discover([str(folder)], 1)
            items = [item for part in inputs.shards[0].parts for item in read_part(part, ReadConfig())]
        finally:
            if root:
                os.seteuid(0)
        assert inputs.unread == 1
        assert [getattr(item, "rule", "") for item in items] == ["file", ""]
    finally:
        (folder / "closed").chmod(0o755)
        shutil.rmtree(folder)


def test_all_faults_at_once(tmp_path: Path) -> None:
    """kept + dropped + errors = read, every fault has its row in the ledger, and the good pages are the corpus."""
    pages = tmp_path / "pages"
    pages.mkdir()
    good = [*(variant(ENGLISH, i) + "." for i in range(5)), CHINESE]
    rows_ = [json.dumps({"text": text}).encode() for text in good]
    (pages / "a.jsonl").write_bytes(b"\n".join([rows_[0], b"{", b'{"text": "\xff"}', b"y" * 300_000, rows_[1]]))
    packed = gzip.compress(
        b"\n".join([rows_[2], rows_[3], b'{"text": "%s"}' % os.urandom(3000).hex().encode()]), mtime=0
    )
    (pages / "b.jsonl.gz").write_bytes(packed[:-100])
    (pages / "c.html.gz").write_bytes(gzip.compress(b"<html>" + b"a" * 1_000_000))
    (pages / "d.txt").write_bytes(b"\0" * 200)
    (pages / "e.warc.gz").write_bytes(b"not a warc")
    (pages / "f.parquet").write_bytes(b"PAR1")
    (pages / "g.txt").write_bytes(good[4].encode() + b"\n" + b"z" * 300_000 + b"\n" + good[5].encode())
    config = corpus.Config(inputs=(str(pages),), read=ReadConfig(max_record_bytes=200_000))
    corpus.run(config, tmp_path / "corpus")
    metrics = read_manifest(tmp_path / "corpus")["metrics"]
    assert metrics["read"] == metrics["kept"] + metrics["dropped"] + metrics["errors"]
    faults = Counter(row["rule"] for row in rows(tmp_path / "corpus" / "ledger") if row["error"])
    assert faults == {
        "malformed_line": 1, "encoding": 1, "too_large": 3, "truncated": 1, "binary": 1, "damaged": 2,
    }  # fmt: skip
    kept = "\n".join(row["text"] for row in rows(tmp_path / "corpus" / "documents"))
    assert all(text.partition(".")[0] in kept for text in good)
