"""Whether a cleaner corpus helps: what the corpora leave out, what is held out, and the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helps_a_model as helps
import pytest

from fledge.core.config import build
from fledge.corpus.chain import ChainConfig
from fledge.corpus.judging.toxic import toxicity
from fledge.stages import corpus


def test_relaxed_limits_are_half_as_strict() -> None:
    default, wide = ChainConfig(), build(ChainConfig, helps.relaxed())
    for language in helps.LANGUAGES:
        before, after = default.rules.table(language), wide.rules.table(language)
        assert before.keys() == after.keys()
        for name, limits in before.items():
            assert after[name].min == (None if limits.min is None else limits.min / 2)
            assert after[name].max == (None if limits.max is None else limits.max * 2)
        assert wide.languages.threshold(language) == default.languages.threshold(language) / 2
    assert wide.duplicates == default.duplicates
    assert wide.personal == default.personal


def test_nothing_but_copies_leaves(tmp_path: Path) -> None:
    rude = "You stupid idiot, shut up, you worthless moron."
    texts = [rude, "cheap watches " * 50, "Ярмарка была у реки.", "Write to jonas.k@mail.example", "a", "a", "1 2 3 4"]
    assert toxicity(rude)[0] > ChainConfig().toxic.density  # by default it would leave
    languages = ["en", "en", "ru", "en", "en", "en", "und"]
    named = zip(texts, languages, strict=True)
    rows = [{"text": text, "source": f"s{i}", "language": language} for i, (text, language) in enumerate(named)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"inputs": [str(tmp_path / "raw.jsonl")], "workers": 1, **helps.only_duplicates(tmp_path)}
    corpus.run(build(corpus.Config, values), tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "manifest.json").read_text())["metrics"]
    assert {k: v for k, v in metrics["stages"].items() if v} == {"duplicates": 1}


def test_held_out_pages_are_clean_and_have_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helps, "HELD_OUT", 3)
    truth: dict[str, dict[str, Any]] = {
        f"{la}{i}": {"language": la, "defect": "toxic" if i == 0 else None, "duplicate_of": None}
        for la in helps.LANGUAGES for i in range(6)
    }  # fmt: skip
    truth["copy"] = {"language": "en", "defect": "exact_duplicate", "duplicate_of": "en1"}
    chosen = helps.choose_held_out(truth)
    assert len(chosen) == 6
    assert not chosen & {"en0", "zh0", "en1", "copy"}
    assert chosen == helps.choose_held_out(truth)


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, seed: int, bits: float) -> dict[str, Any]:
        score = {"mean": 0.25, "low": 0, "high": 1, "n": 4}
        return {"corpus": name, "seed": seed, "parameters": 2_000_000, "tokens": 9, "epochs": 2.0, "seconds": 60,
                "bits_per_byte": {"en": bits, "zh": 2 * bits},
                "skills": {"recall": {"en": score, "zh": score}, "code": {"en": score}}}  # fmt: skip

    facts = {"documents": 3, "tokens": 1000, "bytes": 9, "shares": {"clean": 0.9, "defective": 0.1}}
    found = {
        "machine": {"cpu": "A processor", "cores": 2}, "settings": {"tokens": 9, "seeds": [0, 1], "threads": "1"},
        "crawl": {"pages": {"clean": 3, "toxic": 1}, "characters": {"clean": 90, "toxic": 10},
                  "held_out": {"en": 1, "zh": 1}},
        "corpora": dict.fromkeys(helps.CORPORA, facts),
        "runs": [run(name, seed, 0.5 + 0.1 * seed) for seed in (0, 1) for name in helps.CORPORA],
    }  # fmt: skip
    page = tmp_path / "helps-a-model.md"
    page.write_text((helps.HERE.parent / "docs" / "helps-a-model.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(helps, "DOCS", page)
    helps.write_page(found)
    text = page.read_text(encoding="utf-8")
    assert "| raw | 0.550 (0.500, 0.600) | 1.100 (1.000, 1.200) | 25.0 (25.0, 25.0) |" in text
    assert "| cleaned | 3 | 1,000 | 2.00 | 90.0 | 0.0 | 10.0 |" in text
    assert "| toxic | 1 | 25.0 | 10.0 |" in text
    assert "2.00 million parameters; 9 tokens each" in text
    assert "<svg" in page.with_suffix(".svg").read_text(encoding="utf-8")
