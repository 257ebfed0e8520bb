"""Packed files: every member is read, and of a broken file all that stands before the break."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from fledge.core.errors import DataError
from fledge.core.packed import open_packed
from fledge.core.readers import read_records, read_rows
from fledge.core.records import Conversation
from fledge.tokenizer.inputs import texts

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def lines(count: int, first: int = 0) -> bytes:
    noise = random.Random(first)
    return b"".join(b'{"text": "%d %d"}\n' % (i, noise.getrandbits(200)) for i in range(first, first + count))


def read(path: Path) -> tuple[bytes, str]:
    """All that arrives, and the name of the error that ends it."""
    got = b""
    with open_packed(path) as file:
        try:
            while piece := file.read1(4096):
                got += piece
        except (EOFError, OSError) as error:
            return got, type(error).__name__
    return got, ""


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_all_members_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(PACK[suffix](lines(3000)) + PACK[suffix](b"") + PACK[suffix](lines(2, 3000)))
    assert read(path) == (lines(3000) + lines(2, 3000), "")
    assert [json.loads(line)["text"] for line in lines(3000).splitlines()] == [
        row["text"] for _, row in read_rows(path)
    ][:3000]
    assert sum(1 for _ in read_rows(path)) == 3002
    assert sum(1 for _ in texts(path)) == 3002
    path.write_bytes(b"")
    assert read(path) == (b"", "")


def test_padding_and_skippable_frames_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(PACK["gz"](b"one") + bytes(5000) + PACK["gz"](b"two") + bytes(3))
    assert read(tmp_path / "a.gz") == (b"onetwo", "")
    frame = (0x184D2A50).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"note"
    (tmp_path / "a.zst").write_bytes(frame + PACK["zst"](b"one") + frame + PACK["zst"](b"two"))
    assert read(tmp_path / "a.zst") == (b"onetwo", "")


def test_a_cut_gz_gives_all_that_stands_before_the_cut(tmp_path: Path) -> None:
    data = lines(3000)
    path = tmp_path / "a.gz"
    for size in (15, 1024, 5000, 40_000):
        path.write_bytes(PACK["gz"](data)[:size])
        good = zlib.decompressobj(wbits=31).decompress(path.read_bytes())
        assert read(path) == (good, "EOFError")
        assert data.startswith(good)
    assert len(good) > 60_000


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_rows_before_a_cut_are_read_and_the_cut_is_told(tmp_path: Path, suffix: str) -> None:
    """A whole member, and one that was cut within its first block: the rows of the first, and one complaint."""
    path = tmp_path / f"rows.jsonl.{suffix}"
    path.write_bytes(PACK[suffix](lines(2500)) + PACK[suffix](lines(2000, 2500))[:12])
    skipped: list[str] = []
    assert sum(1 for _ in read_rows(path, "skip", skipped)) == 2500
    assert len(skipped) == 1
    assert skipped[0].startswith(f"{path}:after line 2500: cannot be read further: ")
    with pytest.raises(DataError, match=r"after line 2500: cannot be read further: .* it was cut"):
        list(read_rows(path))
    reasons: list[str] = []
    assert sum(1 for _ in texts(path, reasons)) == 2500
    assert len(reasons) == 1


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_rows_before_damage_are_read_and_the_damage_is_told(tmp_path: Path, suffix: str) -> None:
    """The members are smaller than the pieces they are read in, so a piece holds good rows and bad."""
    path = tmp_path / f"rows.jsonl.{suffix}"
    members = [PACK[suffix](lines(5, 5 * i)) for i in range(100)]
    broken = bytearray(members[60])
    broken[-2] ^= 0xFF  # the checksum: all of the member is given before it is known
    path.write_bytes(b"".join([*members[:60], bytes(broken), *members[61:]]))
    got, error = read(path)
    assert (got, error) == (b"".join(lines(5, 5 * i) for i in range(61)), "OSError")
    skipped: list[str] = []
    assert sum(1 for _ in read_rows(path, "skip", skipped)) == 305
    assert len(skipped) == 1
    assert "cannot be read further: damaged: " in skipped[0]
    path.write_bytes(b"".join([*members[:60], b"no packed data"]))
    assert read(path) == (b"".join(lines(5, 5 * i) for i in range(60)), "OSError")
    with pytest.raises(DataError, match="after line 300: cannot be read further: damaged"):
        list(read_rows(path))


def test_blocks_before_a_damaged_block_arrive(tmp_path: Path) -> None:
    """Blocks of a few bytes each, many in one piece: those before the damage are not lost with it."""
    header = zstandard.ZstdCompressor(write_content_size=False).compress(b"")[:6]
    blocks = [((10 << 3) | 0).to_bytes(3, "little") + b"%09d\n" % i for i in range(20)]
    blocks[15] = ((10 << 3) | 3 << 1).to_bytes(3, "little") + blocks[15][3:]  # a reserved kind of block
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(header + b"".join(blocks))
    assert read(path) == (b"".join(b"%09d\n" % i for i in range(15)), "OSError")


def test_bytes_that_are_no_utf8_cost_their_row_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(100) + b'{"text": "\xff"}\n' + lines(100, 100))
    skipped: list[str] = []
    assert sum(1 for _ in read_rows(path, "skip", skipped)) == 200
    assert [reason.partition(": ")[0] for reason in skipped] == [f"{path}:101"]


def test_a_piece_that_unpacks_to_much_is_given_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "zeros.zst"
    path.write_bytes(PACK["zst"](bytes(40 << 20)))
    with open_packed(path) as file:
        assert len(file.read1(64 << 10)) == 64 << 10
        assert len(file.read()) == (40 << 20) - (64 << 10)


def test_a_damaged_parquet_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"rows\.parquet: not a Parquet file: "):
        list(read_records(path, Conversation))
    skipped: list[str] = []
    assert list(read_records(path, Conversation, "skip", skipped)) == []
    assert len(skipped) == 1
    with pytest.raises(DataError, match=r"rows\.parquet: not a Parquet file: "):
        list(texts(path))
    with pytest.raises(DataError, match="there is no such file"):
        list(read_records(tmp_path / "none.parquet", Conversation))
