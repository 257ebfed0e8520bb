"""The normal form of text, the script of Chinese, lists of addresses, licences of source trees."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from corpus_pages import CHINESE, ENGLISH, html, read, record, write_warc

from fledge.core.errors import ConfigError
from fledge.corpus.extraction.extract import Extractor, extract
from fledge.corpus.extraction.normalise import NormaliseConfig, normalise, repair
from fledge.corpus.extraction.urls import BlockList, UrlsConfig
from fledge.corpus.judging.language import LanguageConfig, chinese_facts, chinese_script, identify
from fledge.corpus.pages import Found
from fledge.corpus.reading.licences import allowed, is_licence_file, licence_of
from fledge.corpus.tables import rows
from fledge.stages import corpus


def test_text_is_kept_in_nfc_and_chinese_punctuation_stays() -> None:
    given = "cafe\u0301，ＡＢＣ１２３！ﬁ x² ㈱ 한"
    text, repaired = normalise(given, NormaliseConfig())
    assert (text, repaired) == ("café，ABC123！ﬁ x² ㈱ 한", 0)
    assert normalise(given, NormaliseConfig(width="keep"))[0] == "café，ＡＢＣ１２３！ﬁ x² ㈱ 한"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [("gb18030", "河水上涨"), ("gb18030", "石头磨坊"), ("cp1252", "café naïve ½"), ("latin-1", "Müßig")],
)
def test_mojibake_is_repaired_where_that_is_asked_for(wrong: str, text: str) -> None:
    broken = text.encode("utf-8").decode(wrong)
    assert broken != text
    assert normalise(f"{text}\n{broken}", NormaliseConfig(repair=True)) == (f"{text}\n{text}", 1)
    assert normalise(f"{text}\n{broken}", NormaliseConfig())[1] == 0


def test_repair_leaves_sound_text_alone(real_data: Path) -> None:
    poems = json.loads((real_data / "text/chinese_classics/tang/poet.tang.0.json").read_text(encoding="utf-8"))
    lines = [line for poem in poems[:300] for line in poem["paragraphs"]]
    lines += [CHINESE, ENGLISH, "“Quoted” – naïve café’s ½", "Это русский текст", "日本語のテキスト", "한국어 문장"]
    assert [repair(line) for line in lines] == lines


def test_what_was_changed_is_in_the_metadata() -> None:
    page, _ = extract(Found("a", 0, "text", "one\0 two\ufffd\x07 three"))
    assert page.text == "one two\ufffd three"
    assert page.meta == {"control_characters": 2, "replaced_characters": 1}
    code, _ = extract(Found("a", 0, "code", "x = 'Ａe\u0301'"))
    assert code.text == "x = 'Ａe\u0301'"
    broken = "caf\u00c3\u00a9"
    mended, _, _ = Extractor(normal=NormaliseConfig(repair=True))(Found("a", 0, "text", broken))
    assert (mended.text, mended.meta) == ("café", {"repaired_lines": 1})


def test_the_script_of_chinese() -> None:
    assert chinese_script("这里说的话写在书里") == "Hans"
    assert chinese_script("這裡說的話寫在書裡") == "Hant"
    assert chinese_script("这里说的话寫在書裡") == "mixed"
    assert chinese_script("床前明月光") == ""
    assert chinese_facts("佢哋唔喺屋企，去咗邊度呀？") == {"script": "Hant", "variety": "yue"}
    assert chinese_facts(CHINESE) == {"script": "Hans"}


def test_the_script_of_real_texts(real_data: Path) -> None:
    folder = real_data / "text/chinese_classics"
    for name, script in (("tang/poet.tang.0.json", "Hant"), ("songci/ci.song.1000.json", "Hans")):
        poems = json.loads((folder / name).read_text(encoding="utf-8"))
        found = [chinese_script("".join(poem["paragraphs"])) for poem in poems]
        assert found.count(script) >= 0.995 * len(found)
        assert found.count("") + found.count(script) == len(found)


def test_short_and_mixed_texts() -> None:
    config = LanguageConfig()
    for text, language in (
        ("你好", "zh"), ("Hello there, how are you?", "en"), ("我用 Python 写了一个小程序", "zh"),
        ("佢哋唔喺屋企", "zh"), ("こんにちは、元気ですか", "ja"), ("안녕하세요", "ko"), ("123 456", "und"),
        ("杵声齐・捣练子\n砧面莹，杵声齐。捣就征衣泪墨题。", "zh"),  # a title's middle dot is no kana
    ):  # fmt: skip
        assert identify(text, config)[0] == language, text


def test_lists_of_addresses(tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("# a remark\nbad.example  # another\n0.0.0.0 ads.example\nhttp://пример.рф/\n")
    (tmp_path / "prefixes.gz").write_bytes(gzip.compress(b"https://news.example/sport/\n*.wild.example/a/b\n"))
    found = BlockList((tmp_path / "hosts.txt", tmp_path / "prefixes.gz"))
    assert len(found) == 5
    for url, entry in (
        ("http://bad.example/", "bad.example"), ("https://WWW.Bad.Example:8080/x?y#z", "bad.example"),
        ("http://ads.example./", "ads.example"), ("http://пример.рф/a", "xn--e1afmkfd.xn--p1ai"),
        ("http://xn--e1afmkfd.xn--p1ai/", "xn--e1afmkfd.xn--p1ai"),
        ("http://news.example/sport", "news.example/sport"), ("http://news.example//%73port/1", "news.example/sport"),
        ("http://x.wild.example/a/b/c", "wild.example/a/b"),
        ("http://notbad.example/", ""), ("http://bad.example.org/", ""), ("http://example/", ""),
        ("http://news.example/sports", ""), ("http://news.example/", ""), ("notes/a.txt", ""), ("", ""),
        ("http://[broken/", ""),
    ):  # fmt: skip
        assert found.find(url) == entry, url
    (tmp_path / "wrong.txt").write_text("good.example\ntwo words\n")
    with pytest.raises(ConfigError, match=r"wrong\.txt:2"):
        BlockList((tmp_path / "wrong.txt",))
    with pytest.raises(ConfigError, match="nowhere"):
        BlockList((tmp_path / "nowhere",))


def test_blocked_pages_are_in_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "block.txt").write_text("bad.example\n")
    pages = [record(url, html(f"{CHINESE} {ENGLISH}")) for url in ("http://www.bad.example/1", "http://a.example/1")]
    write_warc(tmp_path / "a.warc.gz", pages)
    config = corpus.Config(inputs=(str(tmp_path / "a.warc.gz"),), urls=UrlsConfig(block=(tmp_path / "block.txt",)))
    corpus.run(config, tmp_path / "corpus")
    ledger = list(rows(tmp_path / "corpus" / "ledger"))
    assert [(row["stage"], row["rule"], row["url"], row["error"]) for row in ledger] == [
        ("urls", "blocked", "http://www.bad.example/1", False)
    ]
    assert "bad.example" in ledger[0]["excerpt"]


MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
GPL = "GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007\n ... the GNU Affero General Public License ..."
BSD = "Redistribution and use in source and binary forms, with or without modification, are permitted"


def test_licences_are_known_by_their_phrases() -> None:
    apache = Path(__file__).parents[2] / "LICENSE"
    assert licence_of(apache.read_text()) == "Apache-2.0"
    assert (licence_of(MIT), licence_of(GPL), licence_of(BSD)) == ("MIT", "GPL-3.0-only", "BSD-2-Clause")
    assert licence_of(BSD + " Neither the name of the author") == "BSD-3-Clause"
    assert licence_of("All rights reserved.") == "unknown"
    names = ["LICENSE", "licence.txt", "COPYING", "COPYING.LESSER", "LICENSE-MIT", "LICENSE.md", "UNLICENSE"]
    assert all(map(is_licence_file, names))
    assert not any(map(is_licence_file, ["license.py", "licenses.html", "licensed", "LICENSES_of_x.csv", "a.txt"]))
    assert allowed("(MIT OR GPL-2.0-only)", ["MIT"])
    assert allowed("Apache-2.0 WITH LLVM-exception AND MIT", ["MIT", "Apache-2.0"])
    assert not allowed("Apache-2.0 AND GPL-2.0-only", ["Apache-2.0"])
    assert not allowed("", ["MIT"])


def test_source_keeps_the_nearest_licence(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "vendor" / "deep").mkdir(parents=True)
    for name, text in (
        ("LICENSE", MIT), ("a.py", "a = 1"), ("b.c", "/* SPDX-License-Identifier: GPL-2.0-only OR MIT */\nint b;"),
        ("vendor/COPYING", GPL), ("vendor/LICENSE-BSD", BSD), ("vendor/deep/c.py", "c = 1"), ("notes.md", "# Notes"),
    ):  # fmt: skip
        (tree / name).write_text(text)
    (tmp_path / "alone.py").write_text("x = 1")

    found, _ = read(tree, tmp_path / "alone.py")
    licences = {item.source: item.meta.get("licence") for item in found}
    both = "BSD-2-Clause AND GPL-3.0-only"
    assert licences == {
        "tree/LICENSE": "MIT", "tree/a.py": "MIT", "tree/b.c": "GPL-2.0-only OR MIT", "tree/notes.md": "MIT",
        "tree/vendor/COPYING": both, "tree/vendor/LICENSE-BSD": both, "tree/vendor/deep/c.py": both, "alone.py": None,
    }  # fmt: skip
    _, refused = read(tree, tmp_path / "alone.py", licences=["MIT"])
    assert [(item.source, item.rule, item.error) for item in refused] == [
        ("tree/vendor/deep/c.py", "licence", False), ("alone.py", "licence", False)
    ]  # fmt: skip
    rows_file = tmp_path / "rows.jsonl"
    rows_file.write_text(json.dumps({"text": ENGLISH, "license": "CC0-1.0"}))
    assert [item.meta["licence"] for item in read(rows_file)[0]] == ["CC0-1.0"]
