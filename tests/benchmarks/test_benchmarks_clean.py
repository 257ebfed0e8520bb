"""What rules take of clean texts: how the texts are read, and what is counted."""

from __future__ import annotations

from pathlib import Path

import clean_texts as clean

from fledge.corpus.chain import Chain, ChainConfig

SENTENCE = "The river rises in the hills behind the village and runs for forty miles to the sea."


def test_documents_of_a_treebank(tmp_path: Path) -> None:
    marked = tmp_path / "marked.conllu"
    marked.write_text(
        "# newdoc id = a\n# newpar id = a1\n# text = One two.\n1\tOne\n\n# text = Three.\n1\tThree\n\n"
        "# newpar id = a2\n# text = Four.\n\n# newdoc id = b\n# text = Five.\n"
    )
    assert list(clean.treebank(marked)) == ["One two. Three.\nFour.", "Five."]
    plain = tmp_path / "plain.conllu"
    plain.write_text("".join(f"# text = S{i}.\n1\tS\n\n" for i in range(clean.SENTENCES + 2)))
    texts = list(clean.treebank(plain))
    assert [text.count(".") for text in texts] == [clean.SENTENCES, 2]
    chinese = tmp_path / "ud_zh_x" / "plain.conllu"
    chinese.parent.mkdir()
    chinese.write_text("# text = 河。\n# text = 山。\n", encoding="utf-8")
    assert list(clean.treebank(chinese)) == ["河。山。"]


def test_articles_begin_at_their_headings(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_text(" \n = One = \n \n text . \n\n = = Part = = \n \n more . \n \n = Two = \n \n end . \n")
    assert [text.split("\n")[0].strip() for text in clean.articles(file)] == ["= One =", "= Two ="]


def test_what_is_lost_is_counted_by_rule() -> None:
    texts = [SENTENCE, "cheap watches " * 60, "rug works for me"]
    judged = clean.by_chain(texts, Chain(ChainConfig()), show=1)
    assert judged["lost"] == 2
    assert judged["by"].pop("rules.words") == 1
    assert len(judged["by"]) == 1
    assert len(judged["examples"]) == 2
    found = clean.by_set(texts, "en", ("gopher",))
    assert found["lost"] == 3  # all are shorter than 50 words, or repeat themselves
    assert found["by"]["words"] == 2
    assert "words 66.7" in clean.named(found["by"], 3)
