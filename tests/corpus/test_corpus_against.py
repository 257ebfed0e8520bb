"""A corpus against a finished one, cluster sizes and repeat factors, repeats inside documents: through the stage."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpus_pages import CHINESE, ENGLISH, TASKS, variant

from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError
from fledge.core.readers import write_jsonl
from fledge.corpus import lineage, tables
from fledge.corpus.judging.repeats import RepeatsConfig, without_repeats
from fledge.stages import corpus


def make(folder: Path, name: str, texts: list[str], **changes: Any) -> Path:
    (folder / f"{name}-in").mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / f"{name}-in" / "pages.jsonl", [{"text": text} for text in texts])
    config = build(corpus.Config, {"inputs": [str(folder / f"{name}-in")], "duplicates": changes})
    corpus.run(config, folder / name)
    return folder / name


def test_against_a_finished_corpus_without_its_documents(tmp_path: Path) -> None:
    # Sketches of another size than this run's, some of them whole sets; a name that is a pattern elsewhere.
    old = make(tmp_path / "a[b]*", "old", [variant(ENGLISH, i) for i in range(0, 40, 4)] + [CHINESE], sketch=90)
    ids = [row["id"] for row in tables.rows(old / "documents")]
    for path in (old / "documents").iterdir():
        path.write_bytes(b"not read again")
    texts = [variant(ENGLISH, 0).title(), variant(ENGLISH, 4) + " And more.", CHINESE + "完。", variant(ENGLISH, 90)]
    new = make(tmp_path, "new", [*texts, texts[3]], against=[str(old)])
    ledger = {row["offset"]: row for row in tables.rows(new / "ledger")}
    kept = [row["text"] for row in tables.rows(new / "documents")]
    assert kept == [variant(ENGLISH, 90)]
    assert sorted(row["rule"] for row in ledger.values()) == ["exact", "exact", "near", "near"]
    survivors = [row["survivor"].rpartition("#") for _, row in sorted(ledger.items())]
    assert [path for path, _, _ in survivors] == [str(old), str(old), str(old), ""]
    assert [id_ for _, _, id_ in survivors[:3]] == [ids[0], ids[1], ids[-1]]
    assert read_manifest(new)["inputs"]["against"]


def test_a_document_of_another_corpus_is_followed_there(tmp_path: Path) -> None:
    old = make(tmp_path, "old", [ENGLISH])
    new = make(tmp_path, "new", [ENGLISH + "!", CHINESE], against=[str(old)])
    (gone,) = tables.rows(new / "ledger")
    lines = list(lineage.describe(new, gone["id"]))
    assert any("kept in" in line for line in lines)


def test_against_what_cannot_be_compared(tmp_path: Path) -> None:
    none = make(tmp_path, "none", [ENGLISH], sketch=0)
    assert not (none / "signatures").exists()
    with pytest.raises(ArtefactError, match=r"none: keeps no signatures.*sketch=0"):
        make(tmp_path, "new", [ENGLISH], against=[str(none)])
    other = make(tmp_path, "other", [ENGLISH], bands=9, rows=13)
    shutil.rmtree(tmp_path / ".new.partial")
    with pytest.raises(ConfigError, match=r"other.*bands: 9 there, 14 here; rows: 13 there, 8 here"):
        make(tmp_path, "new", [ENGLISH], against=[str(other)])


def test_cluster_sizes_and_how_often_to_train_on_each(tmp_path: Path) -> None:
    texts = [variant(ENGLISH, 0) + f" {i}" for i in range(4)] + [CHINESE, CHINESE, variant(ENGLISH, 50)]
    out = make(tmp_path, "corpus", texts, repeat="fineweb2")
    found = sorted((row["cluster"], row["repeat"]) for row in tables.rows(out / "documents"))
    assert found == [(1, 1), (2, 2), (4, 3)]
    plain = make(tmp_path, "plain", texts)
    assert {row["repeat"] for row in tables.rows(plain / "documents")} == {1}
    assert read_manifest(plain)["metrics"]["duplicates"]["clusters"] == 2


def test_repeated_paragraphs_go_but_the_first() -> None:
    text = "A heading\n\nThe first paragraph of it.\nAnother one.\n\nthe first  paragraph of it.\nshort\nshort\n"
    found = without_repeats(text, RepeatsConfig(paragraphs=True))
    assert found.text == "A heading\n\nThe first paragraph of it.\nAnother one.\n\nshort\nshort"
    assert (found.paragraphs, found.sentences) == (1, 0)
    assert without_repeats(text, RepeatsConfig()).text == text


def similar(a: str, b: str) -> bool:
    """The rule itself, for all pairs."""
    from rapidfuzz.distance import Levenshtein

    if min(len(a), len(b)) <= 15:
        return a == b
    return Levenshtein.distance(a, b) <= int(0.1 * max(len(a), len(b)))


@pytest.mark.parametrize("alphabet", ["abcdefghij ", "的一是在不了有和人这中大为上个国我"])
def test_similar_lines_are_those_that_comparing_all_pairs_finds(alphabet: str) -> None:
    generator = random.Random(7)
    lines: list[str] = []
    for _ in range(400):
        if lines and generator.random() < 0.6:
            line = list(generator.choice(lines))
            for _ in range(generator.randint(0, max(1, len(line) // 7))):
                place = generator.randrange(len(line))
                line[place : place + generator.randint(0, 1)] = generator.choice(alphabet)
            lines.append("".join(line).strip() or "x")
        else:
            lines.append("".join(generator.choices(alphabet, k=generator.randint(8, 70))).strip())
    kept: list[str] = []
    for line in lines:
        if len(line) < 8 or not any(similar(line, other) for other in kept if len(other) >= 8):
            kept.append(line)
    found = without_repeats("\n".join(lines), RepeatsConfig(similar_lines=True))
    assert found.text.split("\n") == kept
    assert found.sentences == len(lines) - len(kept) > 50


def test_pages_lose_their_repeats_or_leave(tmp_path: Path) -> None:
    short, again = "The mill was of grey stone.", "its wheel has not turned for many years!"
    like = f"{ENGLISH}\nIts wheel has not turned for many years.\n{again}"
    texts = [f"{ENGLISH}\n{TASKS}\n{short}\n{short}", like, CHINESE]
    changes = {"similar_lines": True, "least": 20, "most": 0.05}
    out = make(tmp_path, "corpus", texts, near=False, repeats=changes)
    kept = {row["offset"]: row for row in tables.rows(out / "documents")}
    assert [row["text"] for row in kept.values()] == [texts[0].removesuffix("\n" + short), CHINESE]
    assert '"sentences": 1' in kept[0]["meta"]
    (gone,) = tables.rows(out / "ledger")
    assert (gone["stage"], gone["rule"], gone["threshold"]) == ("lines", "repeats", 0.05)
    assert gone["value"] == pytest.approx(len("\n" + again) / len(texts[1]))
    assert read_manifest(out)["metrics"]["duplicates"]["repeated"] == 1
