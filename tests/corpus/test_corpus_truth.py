"""The report against planted truth, on documents and a ledger written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fledge.core.errors import DataError
from fledge.core.readers import write_jsonl
from fledge.corpus import tables, truth
from fledge.corpus.pages import Drop, Page, drop_page

SITE = "https://site.example"


class Made:
    """A truth and the corpus of it, built page by page."""

    def __init__(self) -> None:
        self.truth: list[dict[str, Any]] = []
        self.pages: list[Page] = []
        self.drops: list[Drop] = []

    def page(
        self, name: str, defect: str | None = None, by: str | None = None, *, text: str = "some words",
        survivor: str = "", language: str = "en", original: str | None = None, masked: bool = False,
        left: str | None = None, **meta: Any,
    ) -> str:  # fmt: skip
        """Adds a page; `by` is the stage.rule that drops it, `left` what the document says where it is kept."""
        self.truth.append({
            "url": f"{SITE}/{name}", "language": language, "kind": "prose", "defect": defect, "text": text,
            "duplicate_of": original and f"{SITE}/{original}", "meta": meta,
        })  # fmt: skip
        page = Page(text if left is None else left, "a.warc", len(self.truth), "web", f"{SITE}/{name}", language)
        if masked:
            page.meta["masked"] = 1
        if by is None:
            self.pages.append(page)
        else:
            stage, _, rule = by.partition(".")
            self.drops.append(drop_page(page, stage, rule, 0.5, 0.4, survivor=survivor))
        return page.id

    def report(self, folder: Path) -> dict[str, Any]:
        write_jsonl(folder / "truth.jsonl", self.truth)
        tables.write_table(folder / "corpus/documents/0.parquet", tables.documents_table(self.pages))
        tables.write_table(folder / "corpus/ledger/0.parquet", tables.ledger_table(self.drops))
        return truth.truth_report(folder / "truth.jsonl", folder / "corpus")


def test_a_defect_is_found_by_its_own_detector_only(tmp_path: Path) -> None:
    made = Made()
    made.page("right", "mojibake", "damage.mojibake")
    made.page("other", "mojibake", "rules.words")
    made.page("missed", "mojibake", form="whole")
    made.page("zh", "mojibake", "damage.mojibake", language="zh")
    made.page("clean")
    report = made.report(tmp_path)
    found = report["defects"]["mojibake"]
    assert (found["en"]["recall"], found["en"]["removed_rate"], found["zh"]["recall"]) == (0.3333, 0.6667, 1.0)
    assert report["stages"]["rules"]["en"] == {
        "accused": 1, "right": 0, "clean": 0, "precision": 0.0, "recall": None, "removed_rate": None,
    }  # fmt: skip
    became = {example["url"]: example["became"] for example in report["missed"]["mojibake"]}
    assert became == {f"{SITE}/other": "rules.words", f"{SITE}/missed": "kept"}
    assert report["missing"] == 0


def test_any_rule_may_find_a_defect_of_quality(tmp_path: Path) -> None:
    made = Made()
    made.page("list", "bullet_list", "rules.words")
    made.page("empty", "link_list", "extract.empty")
    made.page("noise", "gibberish", "language.und")
    made.page("loud", "shouting", "language.de")  # sentences, only loud: calling them German is no finding
    made.page("clean", None, "rules.words", decoy="recipe")
    report = made.report(tmp_path)
    assert {name: row["recall"] for name, row in report["summary"].items() if "recall" in row} == {
        "bullet_list": 1.0, "link_list": 1.0, "gibberish": 1.0, "shouting": 0.0,
    }  # fmt: skip
    assert report["stages"]["rules"]["en"]["precision"] == 0.5
    assert report["defects"]["bullet_list"]["en"]["precision"] == 0.5
    language = report["stages"]["language"]["en"]
    assert (language["accused"], language["right"], language["clean"]) == (2, 1, 0)


def test_copies_count_by_pairs(tmp_path: Path) -> None:
    made = Made()
    first = made.page("a")
    made.page("a2", "exact_duplicate", "duplicates.exact", survivor=first, original="a")
    longer = made.page("b2", "near_duplicate", original="b", jaccard=0.97)
    made.page("b", None, "duplicates.minhash", survivor=longer)  # the copy is kept instead of it
    made.page("c")
    made.page("c2", "near_duplicate", original="c", jaccard=0.81)  # missed
    made.page("d", None, "rules.words")
    made.page("d2", "near_duplicate", original="d", jaccard=0.83)  # nothing left to compare with
    made.page("e", None, "duplicates.minhash", survivor=first)  # no copy of anything
    notice = made.page("f", "placeholder")
    made.page("g", "placeholder", "duplicates.minhash", survivor=notice)  # alike by nature: nobody's error
    report = made.report(tmp_path)
    near = report["defects"]["near_duplicate"]["en"]
    assert (near["planted"], near["found"], near["moot"], near["recall"]) == (3, 1, 1, 0.5)
    assert near["precision"] == 0.6667
    assert report["similarity"]["0.80 to 0.85"]["en"]["recall"] == 0.0
    assert report["similarity"]["0.95 to 1.00"]["en"]["recall"] == 1.0
    assert report["clean"]["en"] == {"planted": 5, "lost": 2, "false_positive_rate": 0.4}
    assert set(report["clean_lost"]) == {"rules.words", "duplicates.minhash"}


def test_a_repaired_page_is_found_and_a_masked_clean_page_is_an_error(tmp_path: Path) -> None:
    made = Made()
    made.page("card", "personal_card", masked=True, left="paid with [card]", traces={"4111": 0})
    made.page("both", "personal_phone", masked=True, left="call [phone] or 555", traces={"555": 0, "666": 0})
    made.page("lines", "repeated_lines", left="one\ntwo", traces={"one": 1})
    made.page("again", "repeated_lines", left="one\none", traces={"one": 1})
    made.page("clean", masked=True)
    report = made.report(tmp_path)
    assert report["summary"]["personal_card"]["recall"] == 1.0
    assert report["summary"]["personal_phone"]["recall"] == 0.0
    assert report["summary"]["repeated_lines"]["recall"] == 0.5
    assert report["stages"]["personal"]["en"]["precision"] == 0.6667
    assert report["stages"]["personal"]["en"]["clean"] == 1


def test_decoys_stand_apart_from_clean_pages(tmp_path: Path) -> None:
    made = Made()
    made.page("a", text="one two", left="one two")
    made.page("b", None, "rules.duplicate_lines", decoy="poem", language="zh")
    made.page("c", decoy="poem", language="zh", text="three four", left="three five six")
    made.page("d", "wrong_language", "language.fr", language="fr")
    report = made.report(tmp_path)
    assert report["clean"] == {"en": {"planted": 1, "lost": 0, "false_positive_rate": 0.0}}
    assert report["decoys"]["poem"]["zh"]["false_positive_rate"] == 0.5
    assert report["summary"]["decoys"]["lost"] == 1
    assert report["clean_lost"]["rules.duplicate_lines"]["examples"][0]["kind"] == "poem"
    assert report["defects"]["wrong_language"]["other"]["recall"] == 1.0
    assert report["words_extracted"] == 0.75
    assert report["words_added"] == 0.3333


def test_a_truth_of_other_pages_is_refused(tmp_path: Path) -> None:
    made = Made()
    made.page("a")
    made.report(tmp_path)
    row = {"url": "https://elsewhere.example/", "language": "en", "defect": None}
    write_jsonl(tmp_path / "other.jsonl", [row])
    with pytest.raises(DataError, match="none of its URLs"):
        truth.truth_report(tmp_path / "other.jsonl", tmp_path / "corpus")
    write_jsonl(tmp_path / "other.jsonl", [{**row, "defect": "ugly"}])
    with pytest.raises(DataError, match=r"other\.jsonl:1: unknown defect 'ugly'"):
        truth.truth_report(tmp_path / "other.jsonl", tmp_path / "corpus")
