"""WARC, WAT and WET: every record is accounted for, and a hostile one costs itself."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from corpus_pages import CHINESE, ENGLISH, html, raw_record, read, record, write_warc


def response(url: str, body: bytes, headers: str) -> bytes:
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{headers}\r\n".encode() + body
    return raw_record(
        "response", f"WARC-Target-URI: {url}\r\nContent-Type: application/http; msgtype=response\r\n", http
    )


GOOD = record("http://a.example/good", html(ENGLISH))


def test_a_bomb_inside_a_record_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    bomb = gzip.compress(b"<html>" + bytes(30_000_000), mtime=0)
    large = record("http://a.example/large", b"<html>" + b"a" * 2_000_000)
    write_warc(
        tmp_path / "a.warc.gz", [response("http://a.example/bomb", bomb, "Content-Encoding: gzip\r\n"), large, GOOD]
    )
    found, refused = read(tmp_path / "a.warc.gz", max_record_bytes=1_000_000)
    assert [item.url for item in found] == ["http://a.example/good"]
    assert [(item.rule, item.error, item.url) for item in refused] == [
        ("too_large", True, "http://a.example/bomb"), ("too_large", True, "http://a.example/large"),
    ]  # fmt: skip


def test_headers_that_no_longer_describe_the_body(tmp_path: Path) -> None:
    """What a crawler unpacked before storing is read; what nothing unpacks is told, once, and costs itself."""
    page = html(CHINESE)
    packed = gzip.compress(page, mtime=0)
    records = [
        response("http://a.example/1", page, "Content-Encoding: gzip\r\n"),
        response("http://a.example/2", page, "Transfer-Encoding: chunked\r\n"),
        response("http://a.example/3", packed, "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        response("http://a.example/4", b"\0\1\2\3" * 50, "Content-Encoding: br\r\n"),
        raw_record("response", "Content-Type: application/http; msgtype=response\r\n", b"\0\xff\n\n"),
        GOOD,
    ]
    offsets = write_warc(tmp_path / "a.warc.gz", records)
    found, refused = read(tmp_path / "a.warc.gz")
    assert [item.content for item in found[:3]] == [page] * 3
    assert found[3].url.endswith("good")
    assert [(item.rule, item.offset, item.error) for item in refused] == [
        ("http_body", offsets[3], True), ("http", offsets[4], True),
    ]  # fmt: skip


def test_a_page_that_the_crawler_cut_is_kept_and_says_so(tmp_path: Path) -> None:
    cut = gzip.compress(html(ENGLISH * 40), mtime=0)[:-30]
    whole = response("http://a.example/cut", cut, "Content-Encoding: gzip\r\n")
    write_warc(tmp_path / "a.warc.gz", [whole.replace(b"WARC-Type", b"WARC-Truncated: length\r\nWARC-Type", 1), GOOD])
    found, refused = read(tmp_path / "a.warc.gz")
    assert refused == []
    assert found[0].meta["truncated"] == "length"
    assert isinstance(found[0].content, bytes)
    assert b"The river rises" in found[0].content


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_was_packed_as_a_whole_has_offsets_of_its_own(tmp_path: Path, suffix: str) -> None:
    records = [record(f"http://a.example/{i}", html(ENGLISH + str(i))) for i in range(4)]
    plain = b"".join(records)
    packed = gzip.compress(plain, mtime=0) if suffix == ".gz" else zstandard.ZstdCompressor().compress(plain)
    path = tmp_path / f"a.warc{suffix}"
    path.write_bytes(packed)
    found, refused = read(path)
    assert refused == []
    assert [plain[item.offset :].startswith(records[i]) for i, item in enumerate(found)] == [True] * 4
    path.write_bytes(packed[: len(packed) - 40])
    found, refused = read(path)
    assert len(found) < 4
    assert [item.error for item in refused] == [True]


def test_members_of_zstd(tmp_path: Path) -> None:
    records = [record(f"http://a.example/{i}", html(ENGLISH + str(i))) for i in range(3)]
    packed = [zstandard.ZstdCompressor().compress(item) for item in records]
    (tmp_path / "a.warc.zst").write_bytes(b"".join(packed))
    found, _ = read(tmp_path / "a.warc.zst")
    assert [item.offset for item in found] == [0, len(packed[0]), len(packed[0] + packed[1])]
    spoiled = packed[1][:30] + b"\xff" * 30 + packed[1][60:]
    (tmp_path / "a.warc.zst").write_bytes(packed[0] + spoiled + packed[2])
    found, refused = read(tmp_path / "a.warc.zst")
    assert [item.url[-1] for item in found] == ["0", "2"]
    assert {item.rule for item in refused} == {"damaged"}


def test_a_wat_is_metadata_and_a_wet_is_text(tmp_path: Path) -> None:
    about = raw_record("metadata", "WARC-Target-URI: http://a.example/1\r\nContent-Type: application/json\r\n", b"{}")
    (tmp_path / "a.warc.wat").write_bytes(about * 2)
    fields = "WARC-Target-URI: http://a.example/1\r\nContent-Type: text/plain\r\n"
    texts = [raw_record("conversion", fields, CHINESE.encode(code)) for code in ("utf-8", "gb18030")]
    write_warc(tmp_path / "a.warc.wet.gz", texts)
    found, refused = read(tmp_path)
    assert [(item.kind, item.content) for item in found] == [("text", CHINESE)] * 2
    assert [(item.rule, item.error) for item in refused] == [("record_type", False)] * 2


def test_nonsense_between_records(tmp_path: Path) -> None:
    broken = GOOD.replace(b"Content-Length: ", b"Content-Length: many", 1)
    pieces = [gzip.compress(item, mtime=0) for item in (GOOD, broken, b"no record", GOOD)]
    (tmp_path / "a.warc.gz").write_bytes(bytes(500) + b"".join(pieces))
    found, refused = read(tmp_path / "a.warc.gz")
    assert len(found) == 2
    assert {item.rule for item in refused} == {"damaged"}
    assert all(item.error for item in refused)


def test_real_files_are_read_to_the_last_record(real_data: Path) -> None:
    """Counts as `grep -c "^WARC/1"` has them in the unpacked files; records that are spoiled on purpose are errors."""
    folder = real_data / "html"
    expected = {
        "warc_fixtures/example-bad-non-chunked.warc.gz": (6, 1, 0),
        "warc_fixtures/example-digest.warc": (4, 0, 0),
        "warc_fixtures/example-iana.org-chunked.warc": (3, 1, 0),
        "warc_fixtures/example-resource.warc.gz": (3, 1, 0),
        "warc_fixtures/example-space-in-target-uri.warc.gz": (2, 0, 0),
        "warc_fixtures/example-trunc.warc": (5, 1, 1),
        "warc_fixtures/example-wget-bad-target-uri.warc.gz": (6, 1, 0),
        "warc_fixtures/example-wrong-chunks.warc.gz": (2, 1, 0),
        "warc_fixtures/example.warc": (6, 1, 0),
        "warc_fixtures/example.warc.gz": (6, 1, 0),
        "warc_fixtures/post-test.warc.gz": (6, 0, 0),
        "warc_whirlwind/whirlwind.warc": (4, 1, 0),
        "warc_whirlwind/whirlwind.warc.gz": (4, 1, 0),
        "warc_whirlwind/whirlwind.warc.wat": (2, 0, 0),
        "warc_whirlwind/whirlwind.warc.wat.gz": (2, 0, 0),
        "warc_whirlwind/whirlwind.warc.wet": (2, 1, 0),
        "warc_whirlwind/whirlwind.warc.wet.gz": (2, 1, 0),
        "warc_dolma_sample/sample-0000.warc.gz": (48, 22, 0),
        "warc_dolma_sample/sample-0001.warc.gz": (34, 15, 0),
    }
    seen = {}
    for name in expected:
        found, refused = read(folder / name)
        offsets = Counter(item.offset for item in (*found, *refused))
        assert max(offsets.values()) == 1 or name.endswith("example-trunc.warc"), name
        seen[name] = (len(found) + len(refused), len(found), sum(item.error for item in refused))
    assert seen == expected
