"""Of a packed file that breaks off, what stands before the break is read; the break goes to the ledger."""

from __future__ import annotations

import gzip
import os
import random
import zlib
from pathlib import Path

import pytest
import zstandard
from corpus_pages import ENGLISH, html, read

from fledge.core.artefact import fingerprint, read_manifest
from fledge.core.errors import ConfigError
from fledge.corpus.reading.inputs import discover
from fledge.stages import corpus


def lines(count: int) -> bytes:
    noise = random.Random(0)
    return b"".join(b"line %d %x\n" % (i, noise.getrandbits(200)) for i in range(count))


def test_a_cut_text_gz_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(lines(500), mtime=0)[:-200])
    good = zlib.decompressobj(wbits=31).decompress(path.read_bytes())
    found, refused = read(path)
    kept = "".join(str(item.content) for item in found)
    assert kept.encode() == good[: good.rfind(b"\n") + 1]
    assert kept.count("\n") > 400
    assert [(item.rule, item.offset, item.error) for item in refused] == [("truncated", len(good), True)]


def test_a_cut_html_gz_is_told_with_how_much_of_it_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.html.gz"
    path.write_bytes(gzip.compress(html(ENGLISH * 20), mtime=0)[:-20])
    good = zlib.decompressobj(wbits=31).decompress(path.read_bytes())
    found, refused = read(path)
    assert (found, [(item.rule, item.offset) for item in refused]) == ([], [("truncated", len(good))])
    assert good


@pytest.mark.parametrize("name", ["a.txt.zst", "a.jsonl.zst"])
def test_a_cut_zst_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = lines(300) if "txt" in name else b"".join(b'{"text": "row %d"}\n' % i for i in range(300))
    pack = zstandard.ZstdCompressor().compress
    path.write_bytes(pack(rows) + pack(rows)[:-30])
    found, refused = read(path)
    assert [item.rule for item in refused] == ["truncated"]
    assert refused[0].error
    if "txt" in name:
        assert "".join(str(item.content) for item in found).encode() == rows
    else:
        assert [item.content for item in found] == [f"row {i}" for i in range(300)]


def test_what_is_neither_file_nor_folder_is_counted(tmp_path: Path) -> None:
    (tmp_path / "notes" / "sub").mkdir(parents=True)
    (tmp_path / "notes" / "a.txt").write_text("a")
    (tmp_path / "notes" / "b.txt").symlink_to("a.txt")  # a link to a file is read
    (tmp_path / "notes" / ".hidden").write_text("x")
    (tmp_path / "notes" / "folder").symlink_to(tmp_path)
    (tmp_path / "notes" / "sub" / "broken.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "notes" / "sub" / "pipe")
    found = discover([str(tmp_path / "notes")], 1)
    assert [part.label for shard in found.shards for part in shard.parts] == ["notes/a.txt", "notes/b.txt"]
    assert (found.hidden, found.unread) == (1, 3)
    found = discover([str(tmp_path / "notes" / "sub" / "*")], 1)
    assert (found.shards, found.unread) == ((), 2)
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        discover([str(tmp_path / "notes" / "sub" / "pipe")], 1)


def test_the_hash_of_a_folder_is_of_the_files_that_are_read(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    for name in ("a.txt", "snapshots/b.txt", "metrics.jsonl", "manifest.json", "deep/c.txt", "deep/manifest.json"):
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).write_text("{}")
    files = discover([str(notes)], 1).files[str(notes)]
    assert len(files) == 6
    for file in files:
        before = fingerprint(notes)
        file.write_text("[]")
        assert fingerprint(notes) != before, file
    before = fingerprint(notes)
    for name in (".git/x", "deep/.hidden", "deep/__pycache__/c.pyc"):
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).write_text("not read")
    assert len(discover([str(notes)], 1).files[str(notes)]) == 6
    assert fingerprint(notes) == before


def test_what_is_not_read_is_in_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text(ENGLISH * 5)
    (tmp_path / "notes" / "folder").symlink_to(tmp_path)
    corpus.run(corpus.Config(inputs=(str(tmp_path / "notes"),)), tmp_path / "corpus")
    metrics = read_manifest(tmp_path / "corpus")["metrics"]
    assert (metrics["read"], metrics["hidden_files"], metrics["unread_files"]) == (1, 0, 1)
