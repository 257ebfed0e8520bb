"""The tokenizer on real texts, where they are (``FLEDGE_DATA``)."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.stages import tokenizer as stage
from fledge.tokenizer.inspect import inspect_records
from fledge.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("real")
    classics = sorted((real_data / "text" / "chinese_classics").rglob("*.json*"))[:12]
    texts = ["\n".join(strings(json.loads(gunzip(path)))) for path in classics]
    rows = [{"text": text[:100_000], "language": "zh"} for text in texts]
    novel = gunzip(next((real_data / "text" / "gutenberg_moby_dick").glob("*.txt*")))
    rows.append({"text": novel[:800_000], "language": "en"})
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    values = {"documents": str(folder / "rows.jsonl"), "max_characters": 800_000, "vocab_size": 4096}
    stage.run(build(stage.Config, values), folder / "tok")
    return Tokenizer.load(folder / "tok")


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for item in inner for text in strings(item)]


def gunzip(path: Path) -> str:
    return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8")


def test_compression_in_both_languages(real: Tokenizer) -> None:
    metrics = read_manifest(Path(real.origin))["metrics"]
    assert real.vocab_size == 4096
    assert metrics["compression_on"] == {"en": "held-out", "zh": "held-out"}
    assert metrics["compression"]["en"]["bytes_per_token"] > 2.5
    assert metrics["compression"]["zh"]["characters_per_token"] > 0.9


@pytest.mark.parametrize("name", ["ud_hi_pud", "ud_th_pud", "ud_ko_gsd", "ud_ar_pud", "ud_zh_gsdsimp", "ud_vi_vtb"])
def test_both_encoders_agree_on_real_languages(real: Tokenizer, real_data: Path, name: str) -> None:
    lines = gunzip(next((real_data / "text" / name).glob("*.*"))).splitlines()[:1500]
    assert real.fast is not None
    slow = [item.ids for item in real._backend.encode_batch(lines, add_special_tokens=False)]
    assert [real.fast.encode(line) for line in lines] == slow


def test_preferences_are_inspected(real: Tokenizer, real_data: Path) -> None:
    path = real_data / "align" / "preference_demo" / "dpo_zh_demo.json"
    file = io.StringIO()
    summary = inspect_records(path, real, limit=1, console=Console(file=file, width=120))
    assert summary.kind == "preference"
    assert summary.records > 100
    assert summary.trained > summary.records
    assert "⟦" in file.getvalue()
