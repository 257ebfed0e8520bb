"""The large crawl: every kind in both languages, the same bytes from the same seed, a truth complete and true."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import re
import tracemalloc
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import fledge
from fledge.core.errors import ConfigError
from fledge.microworld import Config, presets, tasks
from fledge.microworld.crawl.stream import Crawl, write
from fledge.microworld.crawl.table import DECOYS, KINDS
from fledge.microworld.generate import generate
from fledge.microworld.page import Page
from fledge.microworld.world import World

fastwarc = pytest.importorskip("fastwarc.warc")
# Of all files' names and contents (WARC unpacked: zlib's versions pack differently), before there was a large crawl.
SMOKE_BEFORE = "67eab3912e206138e4930fbaeb01e6bf42924e76c7a8fbba996378e7a075e3f7"
LAPTOP_BEFORE = "60c51e18228904fba1f12238fc92c77bacb339d2e9da8a1113c7f87725f49f3c"
CONFIG = presets["crawl"].model_copy(update={"pages": 1600, "defect_rate": 0.5, "tests_per_skill": 20})


def _crawl(config: Config = CONFIG) -> Crawl:
    world = World(config)
    return Crawl(world, tasks.test_items(world, config.tests_per_skill))


@pytest.fixture(scope="module")
def made() -> list[Page]:
    return list(_crawl())


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(gzip.decompress(data) if path.suffix == ".gz" else data).digest())
    return total.hexdigest()


def test_the_world_without_a_crawl_is_what_it_was(tmp_path: Path) -> None:
    generate(presets["smoke"], tmp_path)
    assert _digest(tmp_path) == SMOKE_BEFORE
    assert "defects" not in presets["smoke"].plain()
    assert Config.model_validate(CONFIG.plain()) == CONFIG


@pytest.mark.long
def test_the_quickstarts_world_is_what_it_was(tmp_path: Path) -> None:
    generate(presets["laptop"], tmp_path)
    assert _digest(tmp_path) == LAPTOP_BEFORE


def test_every_kind_and_form_is_planted_in_both_languages(made: list[Page]) -> None:
    found = defaultdict(set)
    for page in made:
        if page.defect is not None:
            found[page.defect].add((page.meta["form"], page.language))
    assert set(found) == set(KINDS)
    assert len(KINDS) >= 20
    for kind, makers in KINDS.items():
        forms = {form for form, _ in found[kind]}
        assert forms == {maker.__name__ for maker in makers}, kind
        if kind == "wrong_language":
            assert len({language for _, language in found[kind]} - {"en", "zh"}) >= 5
        else:
            assert found[kind] == {(form, language) for form in forms for language in ("en", "zh")}, kind


def test_decoys_are_clean_in_both_languages(made: list[Page]) -> None:
    decoys = [page for page in made if "decoy" in page.meta]
    assert all(page.defect is None and page.duplicate_of is None for page in decoys)
    assert {(p.meta["decoy"], p.language) for p in decoys} == {(d.__name__, la) for d in DECOYS for la in ("en", "zh")}


def test_a_page_follows_from_seed_and_place_alone(made: list[Page]) -> None:
    again = _crawl()
    for i in (2399, 7, 1200, 8, 300, 6, 9):
        assert again[i] == made[i]
    other = _crawl(CONFIG.model_copy(update={"seed": 1}))
    assert all(other[i].text != made[i].text for i in range(20))


def test_copies_resemble_their_originals_as_the_truth_says(made: list[Page]) -> None:
    pages = {page.url: page for page in made}
    assert len(pages) == len(made)
    near, far = [], []
    for page in made:
        if page.defect == "exact_duplicate":
            assert _words(page) == _words(pages[page.duplicate_of or ""])
        elif page.defect == "near_duplicate":
            near.append(_alike(page, pages[page.duplicate_of or ""]))
            assert near[-1] == pytest.approx(page.meta["jaccard"], abs=1e-4)
        elif page.meta.get("decoy") == "similar_page":
            far.append(_alike(page, pages[page.meta["resembles"]]))
            assert far[-1] == pytest.approx(page.meta["jaccard"], abs=1e-4)
    assert 0.8 <= min(near) < 0.85
    assert 0.95 < max(near) < 1
    assert 0.3 <= min(far) < 0.45
    assert 0.5 < max(far) < 0.6
    originals = [pages[page.duplicate_of] for page in made if page.duplicate_of is not None]
    assert all(page.defect is None and "decoy" not in page.meta for page in originals)


def _words(page: Page) -> list[str]:
    """Words, and Chinese characters alone; full-width digits are digits."""
    wide = {0xFF10 + i: 0x30 + i for i in range(10)}
    return re.findall("[\u4e00-\u9fff]|[^\\W_\u4e00-\u9fff]+", page.text.translate(wide).lower())


def _alike(a: Page, b: Page) -> float:
    x, y = ({tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in (_words(a), _words(b)))
    return len(x & y) / len(x | y)


def test_pages_of_one_kind_are_not_copies_of_one_another(made: list[Page]) -> None:
    """Or a finder of duplicates would be blamed for what it rightly finds. Short pages have little to differ in."""
    groups = defaultdict(list)
    for page in made:
        if len(page.text) > 400 and page.defect not in ("exact_duplicate", "near_duplicate"):
            groups[page.defect, page.meta.get("decoy"), page.language].append(page)
    for key, pages in groups.items():
        sets = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in map(_words, pages[:20])]
        highest = max((len(a & b) / len(a | b) for i, a in enumerate(sets) for b in sets[:i]), default=0.0)
        assert highest < 0.6, key


def test_what_was_planted_stands_in_the_page(made: list[Page]) -> None:
    for page in made:
        traces = page.meta.get("traces", {})
        if page.defect is not None and page.defect.startswith("personal_"):
            assert traces
            assert all(trace in page.text for trace in traces)
        if page.defect == "personal_card":
            for trace in traces:
                digits = [int(c) for c in trace if c.isdigit()]
                doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
                assert sum(doubled) % 10 == 0
        if page.defect in ("repeated_lines", "repeated_paragraphs"):
            assert all(page.text.count(trace) > most for trace, most in traces.items())
        if page.defect == "leaked_test":
            assert page.meta["items"]


def test_an_invoice_has_no_valid_card(made: list[Page]) -> None:
    invoices = [page for page in made if page.meta.get("decoy") == "invoice"]
    assert len(invoices) > 4
    for page in invoices:
        (number,) = re.findall(r"\d(?: ?\d){15}", page.text)
        digits = [int(c) for c in number if c.isdigit()]
        assert sum(d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))) % 10


def test_truth_names_every_page_of_the_warc_and_no_other(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"pages": 120})
    crawl = _crawl(config)
    metrics = write(crawl.world, tasks.test_items(crawl.world, 20), tmp_path)
    text = (tmp_path / "truth.jsonl").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    urls = set()
    for path in sorted((tmp_path / "site").glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in fastwarc.ArchiveIterator(file, record_types=fastwarc.WarcRecordType.response):
                if record.http_headers.status_code == 200 and record.http_content_type == "text/html":
                    urls.add(record.headers["WARC-Target-URI"])
    assert urls == {row["url"] for row in rows}
    assert len(rows) == len(crawl) == 180
    assert metrics["pages"] == 120
    assert sum(metrics["defects"].values()) == 60
    assert sum(metrics["decoys"].values()) == 12
    (tmp_path / "again").mkdir()
    write(crawl.world, tasks.test_items(crawl.world, 20), tmp_path / "again")
    for name in ("truth.jsonl", "site/microworld-00000.warc.gz"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.long
def test_memory_does_not_grow_with_the_crawl(tmp_path: Path) -> None:
    peaks = []
    for pages in (500, 4000):
        crawl = _crawl(CONFIG.model_copy(update={"pages": pages}))
        items = tasks.test_items(crawl.world, 20)
        tracemalloc.start()
        write(crawl.world, items, tmp_path / str(pages))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_planter_and_finders_share_no_module_and_no_list() -> None:
    root = Path(fledge.__file__).parent
    trees = {
        part: [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((root / part).rglob("*.py"))]
        for part in ("microworld", "corpus")
    }
    for part, other in (("microworld", "corpus"), ("corpus", "microworld")):
        imported = {name for tree in trees[part] for name in _imports(tree)}
        assert "fledge.core.errors" in imported
        assert not {name for name in imported if name.startswith(f"fledge.{other}")}
    lists = {part: {found for tree in some for found in _lists(tree)} for part, some in trees.items()}
    assert len(lists["microworld"]) > 100
    assert len(lists["corpus"]) > 5
    for planted in lists["microworld"]:
        for wanted in lists["corpus"]:
            shared = planted & wanted
            assert len(shared) < 0.5 * min(len(planted), len(wanted)), shared


def _imports(tree: ast.Module) -> list[str]:
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _lists(tree: ast.Module) -> list[frozenset[str]]:
    """Tuples, lists and sets of five strings and more; names of columns and defects are shared on purpose."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            strings = [n.value for n in node.elts if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            if len(strings) >= 5:
                found.append(frozenset(strings))
    return found


def test_a_dirty_crawl_has_its_kinds_as_often_as_it_says() -> None:
    config = presets["dirty"].model_copy(update={"pages": 330, "tests_per_skill": 5})
    wanted, turns = config.defect_kinds, 10
    assert sum(wanted.values()) * turns == config.pages * config.defect_rate
    found = Counter(page.defect for page in _crawl(config))
    assert found.pop(None) == config.pages
    assert found == {kind: turns * count for kind, count in wanted.items()}


def test_kinds_that_there_are_not_are_refused() -> None:
    with pytest.raises(ConfigError, match="no kind 'mojibak'"):
        _crawl(CONFIG.model_copy(update={"defect_kinds": {"mojibak": 1}}))
    with pytest.raises(ValueError, match="defects=all only"):
        Config(defect_kinds={"mojibake": 1})
    assert "defect_kinds" not in CONFIG.plain()
