"""Stage ``corpus``: pages in, clean documents and a ledger of all that was left out.

Writes ``documents/*.parquet`` (id, text, language, source, offset, url, kind, meta as JSON), ``ledger/*.parquet`` (one
row for every record that was read and is not a document), ``values/*.parquet`` (what was measured on every page, kept
or not), ``funnel.json``, ``inputs.json`` (where the sources were), with
test items ``tests.json`` (what may have been seen of each), and with planted truth ``truth.json``.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from fledge.core.artefact import Work, produce, write_json
from fledge.core.bench import Bench
from fledge.core.errors import ConfigError
from fledge.core.progress import progress
from fledge.corpus.chain import ChainConfig
from fledge.corpus.running.engine import EngineConfig, Step, run_shards, size_of

# What a page and a byte of text cost on one core, and how large pages are: for the forecast before anything is read.
_SECONDS_PER_PAGE = 5.5e-3
_SECONDS_PER_BYTE = 1.2e-6
_BYTES_PER_PAGE = 950
_WARC_BYTES_PER_PAGE = 6_500
_UNPACKED = 4.0


class Config(ChainConfig, EngineConfig):
    """What to read, what to keep, what to compare with."""

    inputs: tuple[str, ...] = Field(min_length=1, description="files, folders, globs, or python:stdlib")
    truth: Path | None = Field(None, description="truth.jsonl of planted defects: precision and recall are reported")


def run(config: Config, out: Path, redo: bool = False) -> Path:
    """Make the corpus at ``out``; a finished one that matches is left as it is."""
    from fledge.corpus.reading.inputs import discover
    from fledge.corpus.running.task import no_room

    inputs = discover(list(config.inputs), config.read.stdlib_characters)
    if unknown := sorted(config.read.licence_of.keys() - inputs.roots.keys()):
        raise ConfigError(
            f"read.licence_of.{unknown[0]}: no input has this name; they are called {', '.join(inputs.roots)}"
        )
    # By number and not by name: a run may be moved, and its inputs are matched by their content.
    named: dict[str, Any] = {
        f"input_{number}": _whole(name, files) for number, (name, files) in enumerate(inputs.files.items())
    }
    if config.decontaminate:
        named["decontaminate"] = list(config.decontaminate)
    if config.duplicates.against:
        named["against"] = list(config.duplicates.against)
    if config.urls.block:
        named["blocked_urls"] = list(config.urls.block)
    if config.truth:
        named["truth"] = config.truth
    models = [*config.scores.folders, *([config.toxic.classifier] if config.toxic.classifier else [])]
    named |= {f"model_{number}": path for number, path in enumerate(models)}
    with produce(out, kind="corpus", stage="corpus", config=config, inputs=named, redo=redo) as work:
        if not work.done:
            try:
                _make(config, inputs, work)
            except OSError as error:
                raise no_room(out, error) or error from None
    return out


def estimate(config: Config, bench: Bench) -> dict[str, Any]:
    """Seconds and size: from the inputs where they are there, else from what is planned to make them."""
    from fledge.corpus.reading.inputs import discover

    size, documents = 0.0, 0.0
    for name in config.inputs:
        pages = bench.fact(name, "pages")
        if pages is not None:
            size, documents = size + pages * _BYTES_PER_PAGE, documents + pages
            continue
        try:
            found = discover([name], config.read.stdlib_characters)
        except ConfigError:
            continue  # not there yet, and its maker says nothing of it
        rendered = 0.0  # of the interpreter's library no more than was asked for is taken
        for part in (part for shard in found.shards for part in shard.parts):
            inside = part.path.stat().st_size * (_UNPACKED if part.path.suffix in (".gz", ".zst") else 1.0)
            pages = inside / _WARC_BYTES_PER_PAGE if part.format == "warc" else max(1.0, inside / 5000)
            documents += pages
            if part.format == "stdlib":
                rendered += inside
            else:
                size += pages * _BYTES_PER_PAGE if part.format == "warc" else inside
        size += min(rendered, config.read.stdlib_characters)
    if not documents:
        return {}
    seconds = 1.0 + (documents * _SECONDS_PER_PAGE + size * _SECONDS_PER_BYTE) / config.workers
    return {"documents": int(documents), "bytes": int(size), "seconds": seconds}


def _whole(name: str, files: list[Path]) -> Path | list[Path]:
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else files


def _make(config: Config, inputs: Any, work: Work) -> None:
    from fledge.corpus.finish import check, finish, funnel
    from fledge.corpus.judging.contamination import read_tests, verdicts
    from fledge.corpus.running.task import chain_of
    from fledge.corpus.running.watch import Job

    chain = ChainConfig.model_validate(config.model_dump(include=set(ChainConfig.model_fields)))
    folder = work.folder / ".shards"
    folder.mkdir(exist_ok=True)
    counts: dict[str, int] = {}
    judged = 0  # by this run: an earlier one may have done the others
    started = time.monotonic()
    with progress("corpus", sum(size_of(shard) for shard in inputs.shards) / 1e6, unit="MB") as bar:

        def show(step: Step) -> None:
            nonlocal judged
            for key, value in (step.counts or {}).items():
                counts[key] = counts.get(key, 0) + value
            judged += step.items
            bar.initial += step.bytes / 1e6 if step.earlier else 0
            bar.advance(step.bytes / 1e6, note=f"{judged:,} docs, {judged / (time.monotonic() - started):,.0f} docs/s")

        run_shards(inputs.shards, Job(chain, folder, config.seconds_per_document), config, show)
    places = [folder / f"shard-{shard.index:05d}" for shard in inputs.shards]
    totals = finish(places, chain, work.folder, memory=config.duplicates.memory, threads=config.workers)
    check(totals, counts.get("read", 0))
    (work.folder / "values").mkdir(exist_ok=True)
    for place, shard in zip(places, inputs.shards, strict=True):
        os.replace(place / "values.parquet", work.folder / "values" / f"part-{shard.index:05d}.parquet")
    report = funnel(work.folder / "ledger", counts.get("read", 0))
    write_json(work.folder / "funnel.json", report)
    _tell_of_exceptions(report)
    write_json(work.folder / "inputs.json", {name: str(path.absolute()) for name, path in inputs.roots.items()})
    work.metrics |= {
        "read": counts.get("read", 0), "kept": totals.kept, "dropped": totals.dropped, "errors": totals.errors,
        "masked": counts.get("masked", 0), "hidden_files": inputs.hidden, "unread_files": inputs.unread,
        "documents": dict(totals.documents), "characters": dict(totals.characters),
        "bytes": dict(totals.bytes), "sources": totals.registry.rows(),
        "inputs": {name: {"read": totals.read[name], "kept": totals.sources[name]} for name in inputs.roots},
        "stages": {stage["stage"]: stage["dropped"] for stage in report["stages"]},
        "duplicates": {**totals.work, "repeated": counts.get("repeated", 0)},
        "docs_per_second": round(judged / (time.monotonic() - started), 1),
    }  # fmt: skip
    if config.decontaminate:
        index = chain_of(chain).tests
        found = verdicts(work.folder, index, (item.id for item in read_tests(config.decontaminate)))
        write_json(work.folder / "tests.json", found)
        work.metrics |= {**index.facts(), "tests": dict(found["counts"])}
    if config.truth:
        from fledge.corpus.truth import truth_report

        truth = truth_report(config.truth, work.folder)
        write_json(work.folder / "truth.json", truth)
        work.metrics["truth"] = truth["summary"]
    shutil.rmtree(folder)


def _tell_of_exceptions(report: dict[str, Any]) -> None:
    """What our own code raised on pages is in the ledger, and may be many: it is said, with an example."""
    for stage in report["stages"]:
        for rule in stage["rules"]:
            if rule["rule"] == "exception":
                example = next(sample for samples in rule["samples"].values() for sample in samples)
                print(
                    f"corpus: {rule['dropped']:,} pages raised an exception and were left out, as {example['id']}: "
                    f"{example['excerpt']}", file=sys.stderr, flush=True,
                )  # fmt: skip
