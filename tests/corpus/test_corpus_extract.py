"""Extraction in a child process, with either extractor: what hangs or dies costs one page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from corpus_pages import CHINESE, ENGLISH, html, record, write_warc

from fledge.core.artefact import read_manifest
from fledge.core.errors import ConfigError
from fledge.corpus.extraction.careful import Child, ExtractionError
from fledge.corpus.extraction.extract import ExtractConfig, Extractor, extract
from fledge.corpus.extraction.main_text import main_text
from fledge.corpus.pages import Found
from fledge.corpus.tables import rows
from fledge.stages import corpus

HAS_TRAFILATURA = find_spec("trafilatura") is not None
careful = pytest.mark.skipif(not HAS_TRAFILATURA, reason="trafilatura is not installed (the extra `careful`)")


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child("resiliparse")
    yield made
    made.close()


def page(text: str) -> str:
    return html(text).decode()


def test_a_child_gives_what_the_parent_would(child: Child) -> None:
    for text in (ENGLISH, CHINESE, "a\u2028 b\0c"):
        source = html(ENGLISH).decode().replace(ENGLISH, text)
        assert child.extract(source, 30.0) == main_text(source)


@pytest.mark.parametrize("times", [1, 1000])  # more than a pipe holds: writing must not wait for ever either
def test_a_child_that_hangs_is_told_and_replaced(child: Child, times: int) -> None:
    child.extract(page(ENGLISH), 30.0)
    assert child.process is not None
    hung = child.process.pid
    os.kill(hung, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(ExtractionError, match=r"0\.3 s") as told:
        child.extract(page(ENGLISH * times), 0.3)
    assert told.value.rule == "timeout"
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)
    assert "old mill" in child.extract(page(ENGLISH), 30.0)[0]


def test_a_child_that_dies_is_told_and_replaced(child: Child) -> None:
    child.extract(page(ENGLISH), 30.0)
    assert child.process is not None
    os.kill(child.process.pid, signal.SIGKILL)
    with pytest.raises(ExtractionError, match="-9") as told:
        child.extract(page(ENGLISH), 30.0)
    assert told.value.rule == "crash"
    assert "old mill" in child.extract(page(ENGLISH), 30.0)[0]


def test_a_child_does_not_outlive_its_parent() -> None:
    code = (
        "from fledge.corpus.extraction.careful import Child; import os\n"
        "c = Child('resiliparse'); c.extract('<p>a', 30.0)\n"
        "print(c.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    pid = int(run.stdout)
    until = time.monotonic() + 10
    while time.monotonic() < until and Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in _state(pid)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_large_pages_go_to_a_child() -> None:
    extractor = Extractor(ExtractConfig(large_bytes=2000, seconds=30.0))
    result, problem, _ = extractor(Found("a", 0, "html", html(ENGLISH)))
    assert (problem, extractor.child.process) == ("", None)
    result, problem, _ = extractor(Found("a", 0, "html", html(ENGLISH * 10)))
    assert problem == ""
    assert extractor.child.process is not None
    assert result.text == extract(Found("a", 0, "html", html(ENGLISH * 10)))[0].text
    extractor.child.close()


def test_a_page_that_takes_too_long_is_in_the_ledger_and_the_others_in_the_corpus(tmp_path: Path) -> None:
    """A page of a hundred thousand paragraphs takes resiliparse longer than a hundredth of a second."""
    long = html("\n".join([ENGLISH] * 20_000))
    pages = [(f"http://a.example/{i}", html(f"{CHINESE}{ENGLISH} {i}")) for i in range(3)]
    records = [record(url, body) for url, body in (*pages[:2], ("http://a.example/long", long), pages[2])]
    write_warc(tmp_path / "a.warc.gz", records)
    limits = ExtractConfig(seconds=0.01, large_bytes=100_000)
    config = corpus.Config(inputs=(str(tmp_path / "a.warc.gz"),), extract=limits)
    corpus.run(config, tmp_path / "corpus")
    metrics = read_manifest(tmp_path / "corpus")["metrics"]
    ledger = list(rows(tmp_path / "corpus" / "ledger"))
    assert metrics["read"] == 4
    assert metrics["errors"] == 1
    assert [(row["stage"], row["rule"], row["url"]) for row in ledger if row["error"]] == [
        ("extract", "timeout", "http://a.example/long")
    ]
    assert "extract.seconds" in next(row["excerpt"] for row in ledger if row["error"])


@pytest.mark.parametrize(("tag", "refused"), [("div", True), ("ul><li", True), ("b", False), ("table><tr><td", False)])
def test_a_page_of_endless_depth_costs_no_time(tag: str, refused: bool) -> None:
    started = time.monotonic()
    _, problem, detail = Extractor()(Found("a", 0, "html", b"<body>" + f"<{tag}>word ".encode() * 30_000))
    if refused:
        assert problem == "parser"
        assert "deep" in detail
    assert time.monotonic() - started < 2


def test_a_page_of_many_lists_takes_no_longer_than_its_length() -> None:
    """Of a collection of resiliparse's that is iterated, each step begins at the front: 2,000 took half a minute."""
    items = "<ul><li>One thing that is said</li></ul>" * 1500 + "<ul>" + "<li>and another one</li>" * 1500 + "</ul>"
    started = time.monotonic()
    text = main_text(f"<body><main>{items}</main></body>")[0]
    assert time.monotonic() - started < 2
    assert text.count("- One thing that is said") == 1500
    assert text.count("- and another one") == 1500


@careful
def test_trafilatura_gives_main_text_and_title() -> None:
    extractor = Extractor(ExtractConfig(by="trafilatura", seconds=30.0))
    result, problem, _ = extractor(Found("a", 0, "html", html(CHINESE + "\n" + ENGLISH, title="小河")))
    assert problem == ""
    assert "老磨坊" in result.text
    assert "old mill" in result.text
    assert "Imprint" not in result.text
    assert result.meta["title"] == "小河"
    extractor.child.close()


@pytest.mark.skipif(HAS_TRAFILATURA, reason="trafilatura is installed")
def test_trafilatura_missing_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(html(ENGLISH))
    with pytest.raises(ConfigError, match="fledge\\[careful\\]"):
        Extractor(ExtractConfig(by="trafilatura"))
    child = Child("trafilatura")
    with pytest.raises(ConfigError, match="fledge\\[careful\\]"):
        child.extract(page(ENGLISH), 30.0)
