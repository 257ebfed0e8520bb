"""The WARC files hold what the truth says, and the planted defects are what they claim to be."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fledge.microworld import presets
from fledge.microworld.defects import KINDS, identity_number, jaccard, luhn
from fledge.microworld.generate import generate
from fledge.microworld.world import World

fastwarc = pytest.importorskip("fastwarc.warc")
CONFIG = presets["smoke"].model_copy(update={"pages": 400, "defect_rate": 0.2})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    generate(CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def truth(made: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def records(made: Path) -> dict[str, tuple[str, bytes]]:
    """URL -> Content-Type and body of every response."""
    found = {}
    for path in sorted((made / "site").glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in fastwarc.ArchiveIterator(
                file, record_types=fastwarc.WarcRecordType.response, parse_http=False
            ):
                assert record.verify_block_digest()
                record.parse_http()
                assert record.verify_payload_digest()
                body = record.reader.read()
                found[record.headers["WARC-Target-URI"]] = (record.http_headers.get("Content-Type", ""), body)
    return found


def _decode(content_type: str, body: bytes) -> str | None:
    """By header, then meta; None where neither says. The label gb2312 means GBK, as in browsers (WHATWG Encoding)."""
    declared = re.search(r"charset=([\w-]+)", content_type)
    inside = re.search(rb'charset="?([\w-]+)', body[:1500])
    if declared:
        return body.decode({"gb2312": "gbk"}.get(declared[1], declared[1]))
    label = inside[1].decode() if inside else ""
    return body.decode({"gb2312": "gbk"}.get(label, label)) if label else None


def test_every_page_of_the_truth_is_in_the_warc(
    truth: list[dict[str, Any]], records: dict[str, tuple[str, bytes]]
) -> None:
    assert len({r["url"] for r in truth}) == len(truth)
    assert {r["url"] for r in truth} < records.keys()
    others = records.keys() - {r["url"] for r in truth}
    assert any(url.endswith("robots.txt") for url in others)
    assert any(url.endswith(".gif") for url in others)
    for row in truth:
        page = _decode(*records[row["url"]])
        if page is None:
            continue
        plain = html.unescape(re.sub(r"<[^>]+>", "\n", page))
        for line in row["text"].splitlines():
            for cell in line.split("\t\t"):
                assert cell.strip() in plain, (row["url"], cell)


def test_pages_come_in_several_encodings_and_with_chrome(records: dict[str, tuple[str, bytes]]) -> None:
    declared = Counter(m[1] for kind, _ in records.values() if (m := re.search(r"charset=([\w-]+)", kind)))
    assert {"utf-8", "gbk"} <= declared.keys()
    assert len(declared) >= 4
    assert sum(_decode(*r) is None for r in records.values() if r[0] == "text/html") > 5
    bodies = [body for kind, body in records.values() if kind.startswith("text/html")]
    for piece in (b"<nav", b"cookie", b"<footer", b"<script", b"sidebar", b"&copy;"):
        assert sum(piece in b for b in bodies) > len(bodies) // 3


def test_hosts_are_reserved_names(truth: list[dict[str, Any]]) -> None:
    assert all(r["url"].split("/")[2].endswith(".example") for r in truth)


def test_defects_are_planted_at_the_rate(truth: list[dict[str, Any]]) -> None:
    counts = Counter(r["defect"] for r in truth)
    assert counts[None] == CONFIG.pages
    assert set(counts) - {None} == set(KINDS)
    assert len(truth) - counts[None] == round(CONFIG.pages * CONFIG.defect_rate)
    assert max(counts[k] for k in KINDS) - min(counts[k] for k in KINDS) <= 1


def test_duplicates_are_duplicates(truth: list[dict[str, Any]]) -> None:
    pages = {r["url"]: r for r in truth}
    for row in truth:
        if row["defect"] == "exact_duplicate":
            assert row["text"] == pages[row["duplicate_of"]]["text"]
        elif row["defect"] == "near_duplicate":
            original = pages[row["duplicate_of"]]
            assert row["text"] != original["text"]
            assert jaccard(row["text"], original["text"], row["language"]) >= 0.85
        else:
            assert row["duplicate_of"] is None


def test_clean_pages_are_unlike_each_other(truth: list[dict[str, Any]]) -> None:
    clean = [r for r in truth if r["defect"] is None]
    for language in ("en", "zh"):
        texts = [r["text"] for r in clean if r["language"] == language][:60]
        highest = max(jaccard(a, b, language) for i, a in enumerate(texts) for b in texts[:i])
        assert highest < 0.4


def test_leaks_quote_test_items(made: Path, truth: list[dict[str, Any]]) -> None:
    tests = [json.loads(line) for line in (made / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    answers = {t["meta"]["key"]: t["meta"]["reference"] for t in tests}
    questions = {t["meta"]["key"]: t["messages"][0]["content"] for t in tests}
    leaks = [r for r in truth if r["defect"] == "leaked_test"]
    assert leaks
    for row in leaks:
        keys = row["meta"]["items"]
        assert keys
        for key in keys:
            assert answers[key] in row["text"]
            for part in questions[key].split("\n\n"):
                assert part in row["text"]


def test_personal_numbers_pass_their_checks() -> None:
    rng = World(CONFIG).rng("numbers")
    for _ in range(50):
        card = luhn(rng)
        doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(card)]
        assert sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
        number = identity_number(rng)
        weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
        total = sum(int(d) * w for d, w in zip(number, weights, strict=False))
        assert number[17] == "10X98765432"[total % 11]
