"""The report: whole, safe, and honest about what is missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fledge.core.artefact import produce, write_json
from fledge.core.config import Config
from fledge.core.errors import ArtefactError
from fledge.core.readers import write_jsonl
from fledge.core.records import Message, Task
from fledge.evaluate.stage import score_rows, summarise
from fledge.report import graph
from fledge.report.collect import evaluations, read_run
from fledge.report.run import write_report

HOSTILE = '<script>alert(1)</script><img src="http://evil.example/x.png">'


class Settings(Config):
    model: Path | None = None
    note: str = HOSTILE


def artefact(
    run: Path, name: str, stage: str, made_from: list[str], files: dict[str, object], metrics: dict[str, object]
) -> Path:
    inputs = {f"input-{i}": run / other for i, other in enumerate(made_from)}
    with produce(run / name, kind=stage, stage=stage, config=Settings(), inputs=inputs) as work:
        for file, value in files.items():
            if file.endswith(".jsonl"):
                assert isinstance(value, list)
                write_jsonl(work.folder / file, value)
            else:
                write_json(work.folder / file, value)
        work.metrics.update(metrics)
    return run / name


def scored(replies: dict[str, str]) -> dict[str, object]:
    """The files of an evaluation, made by the evaluation's own functions."""
    tasks = [
        Task(
            id=f"{skill}-{language}-{i}", messages=(Message(role="user", content=f"{i}?"),), verifier="contains",
            answer={"all": ["yes"]}, skill=skill, language=language,
            meta={"wording": "held_out" if i % 4 == 0 else "seen"},
        )
        for skill in replies for language in ("zh", "en") for i in range(40)
    ]  # fmt: skip
    found = {t.id: {"reply": replies[t.skill], "tokens": 3, "finish": "stop"} for t in tasks}
    rows = score_rows(tasks, found)
    skipped = [(tasks[0].model_copy(update={"skill": "code"}), f"no sandbox {HOSTILE}")]
    answers = {"answers": [{"kind": "identity", "language": "en", "prompt": "Who are you?", "reply": HOSTILE}]}
    return {
        "results.jsonl": rows,
        "scores.json": {**summarise(rows, skipped, 200, 0), "prompt": "chat", "sandbox": "none"},
        "answers.json": answers,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "小雀 & co"
    folder.mkdir()
    curve = [{"step": i, "tokens": 9.0 * i, "loss": 5 / i, "lr": 1e-3, "reward": float(i % 7)} for i in range(1, 90)]
    sample = {
        "id": "1",
        "url": "http://a.example",
        "value": 0.4,
        "threshold": 0.2,
        "survivor": "",
        "excerpt": f"中文{HOSTILE}",
    }
    rule = {"rule": "top_2gram", "dropped": 3, "languages": {"zh": 3}, "samples": {"zh": [sample]}}
    stages = [{"stage": "rules", "in": 10, "dropped": 3, "out": 7, "rules": [rule]}]
    artefact(
        folder,
        "corpus",
        "corpus",
        [],
        {"funnel.json": {"read": 10, "kept": 7, "stages": stages}},
        {"read": 10, "kept": 7},
    )
    artefact(
        folder, "pretrain", "pretrain", ["corpus"], {"metrics.jsonl": curve}, {"parameters": 4_400_000, "tokens": 1e6}
    )
    artefact(folder, "base-scores", "evaluate", ["pretrain"], scored({"recall": "no", "idk": "yes"}), {})
    artefact(folder, "sft", "sft", ["pretrain"], {"metrics.jsonl": curve[:5]}, {"parameters": 4_400_000})
    artefact(folder, "sft-scores", "evaluate", ["sft"], scored({"recall": "yes", "idk": "yes"}), {})
    asked = [{"name": n} for n in ("corpus", "pretrain", "base-scores", "sft", "sft-scores", "dpo")]
    write_json(folder / "run.json", {"name": folder.name, "stages": asked})
    write_report(folder)
    return folder


class Page(HTMLParser):
    """What a browser would ask the network for, and what it would run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.wanted: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.wanted += [str(values[key]) for key in ("src", "href", "action", "data") if key in values]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(values["content"])


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_whole_and_safe(html: str) -> None:
    page = Page()
    page.feed(html)
    assert "default-src 'none'" in page.policy
    assert "script" not in page.tags, "text of models and pages is escaped"
    assert "img" not in page.tags
    assert all(target.startswith("#") for target in page.wanted), page.wanted
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert html.count("&lt;script&gt;alert(1)") >= 3


def test_skills_side_by_side(html: str) -> None:
    text = re.sub(r"\s+", " ", html)
    assert re.search(r'class="gain up"[^>]*>\+100</span><b>100</b><i>100–100</i>', text)
    assert "seen 100 · held out 100" in text
    assert "(plain prompt)" not in text
    assert "no sandbox" in text


def test_what_is_missing_is_said(html: str, run: Path, tmp_path: Path) -> None:
    assert "Not there yet: dpo" in html
    bare = tmp_path / "bare"
    bare.mkdir()
    artefact(bare, "words", "tokenizer", [], {}, {"ids": 300, "compression": {"en": {"bytes_per_token": 3.0}}})
    text = write_report(bare).read_text(encoding="utf-8")
    assert "No evaluation has been made" in text
    assert "No training has been done" in text
    assert "bytes per token 3" in text


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no artefact"):
        write_report(tmp_path)
    with pytest.raises(ArtefactError, match="no such folder"):
        write_report(tmp_path / "none")


def test_a_damaged_artefact_is_named_and_the_rest_shown(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "sft/manifest.json").write_text("{", encoding="utf-8")
    (copy / "sft-scores/scores.json").write_text("[1", encoding="utf-8")
    with (copy / "pretrain/metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 90, "lo')
    text = write_report(copy).read_text(encoding="utf-8")
    assert re.search(r"Left out: .*sft/manifest.json: damaged", text)
    assert "Greedy replies" in text


def test_lineage_of_the_run(run: Path) -> None:
    found = read_run(run)
    assert list(evaluations(found)) == ["base", "sft"]
    pairs = graph.edges(found)
    assert set(pairs) == {
        ("corpus", "pretrain"),
        ("pretrain", "base-scores"),
        ("pretrain", "sft"),
        ("sft", "sft-scores"),
    }
    assert graph.columns([a.name for a in found.artefacts], pairs) == [
        ["corpus"], ["pretrain"], ["base-scores", "sft"], ["sft-scores"],
    ]  # fmt: skip
    assert graph.draw(found).count("<path") == 4


def test_the_same_run_gives_the_same_bytes(run: Path, html: str) -> None:
    assert write_report(run).read_text(encoding="utf-8") == html
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["name"] == run.name
