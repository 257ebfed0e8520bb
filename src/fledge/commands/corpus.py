"""``fledge corpus``: a corpus from any inputs, and questions to one that is made."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fledge.commands.stage import print_keys, read_values, run_built
from fledge.core.artefact import MANIFEST, read_manifest
from fledge.core.config import Config, read_yaml, with_overrides
from fledge.core.errors import ConfigError
from fledge.recipe import stage_config, stage_module

if TYPE_CHECKING:
    from fledge.corpus.replay import Replay

_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.]*=")


def make(words: Sequence[str], out: Path | None, dry_run: bool, redo: bool, keys: bool) -> None:
    """The stage on the inputs that are named, and what became of them as one line of JSON at the end."""
    if keys:
        print_keys("corpus")
        return
    config = read_words(words)
    run_built("corpus", config, out, dry_run, redo)
    if out is not None and not dry_run:
        metrics = read_manifest(out.expanduser())["metrics"]
        typer.echo(json.dumps({name: metrics[name] for name in ("read", "kept", "dropped", "errors")}))


def read_words(words: Sequence[str]) -> Config:
    """Inputs, ``key=value``, and at most one configuration (a YAML file, or a corpus that has been made), in any
    order. Inputs that are named stand in place of the configuration's. What exists as a file is no ``key=value``."""
    overrides = [word for word in words if _ASSIGNMENT.match(word) and not Path(word).exists()]
    rest = [word for word in words if word not in overrides]
    given = [word for word in rest if _is_configuration(Path(word).expanduser())]
    inputs = [word for word in rest if word not in given]
    if len(given) > 1:
        raise ConfigError(f"fledge corpus: one configuration, please, not {len(given)}: {', '.join(given)}")
    values: dict[str, Any] = {}
    for word in given:
        values = read_values("corpus", Path(word).expanduser())
    if inputs:
        values["inputs"] = inputs
    if not values.get("inputs") and not any(word.startswith("inputs=") for word in overrides):
        raise ConfigError(
            "fledge corpus: name what to read: files, folders, globs or python:stdlib, as in "
            "`fledge corpus pages/ notes.jsonl --out my-corpus`"
        )
    return stage_config("corpus", with_overrides(values, overrides), given[0] if given else "fledge corpus")


def _is_configuration(path: Path) -> bool:
    """A YAML file whose keys are the stage's (others are read as text), or the folder of an artefact."""
    if path.is_dir():
        return (path / MANIFEST).exists() and read_manifest(path).get("stage") == "corpus"
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    try:
        values = read_yaml(path)
    except ConfigError:
        return True  # whose message says what is wrong with it
    return bool(values) and set(values) <= set(stage_module("corpus").Config.model_fields)


def why(corpus: Path, document: str) -> None:
    """What became of a document, and where it came from."""
    from fledge.commands.lineage import lineage

    lineage(corpus, document, None, None)


def rules(name: str) -> None:
    """The sets of rules, or one of them as its page has it."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from fledge.corpus.judging.rule_pages import ABOUT, LANGUAGES, described, require_set
    from fledge.corpus.judging.rule_sets import SETS

    console = Console(highlight=False)
    if not name:
        shown = Table("set", "languages", "what it is", box=box.SIMPLE_HEAD)
        for known, about in ABOUT.items():
            shown.add_row(known, ", ".join(la for la, sets in SETS.items() if known in sets), escape(about))
        console.print(shown)
        return
    require_set(name)
    for language, sets in SETS.items():
        if name in sets:
            shown = Table(title=f"{name}: {LANGUAGES[language]}", title_justify="left", box=box.SIMPLE_HEAD)
            for column in ("rule", "a page stays with", "measured, and after whom"):
                shown.add_column(column)
            for row in described(sets[name]):
                shown.add_row(*map(escape, row))
            console.print(shown)


def report(words: Sequence[str], out: Path | None, sample: int) -> None:
    """The page of a corpus; with other values, what they would do. Of inputs: of a sample of them, judged now."""
    from fledge.corpus.chain import ChainConfig
    from fledge.corpus.replay import replay
    from fledge.report.corpus import write_corpus_report

    with _judged(words, sample) as (corpus, overrides):
        made = read_values("corpus", corpus)
        configs = [
            ChainConfig.model_validate(
                stage_config("corpus", values, str(corpus)).model_dump(include=set(ChainConfig.model_fields))
            )
            for values in (made, with_overrides(made, overrides))
        ]
        as_made = replay(corpus, configs[0])
        asked = as_made if configs[1] == configs[0] else replay(corpus, configs[1])
        path = write_corpus_report(corpus, as_made, asked, configs[1], out or Path(f"{corpus.name}-report.html"))
        _print_rules(corpus.name, as_made, asked)
    typer.echo(f"report: {path}")


@contextmanager
def _judged(words: Sequence[str], sample: int) -> Iterator[tuple[Path, list[str]]]:
    """The corpus that is named, and what is to be set; or one made of about ``sample`` records of the inputs, the first
    of each shard."""
    from fledge.corpus.reading.inputs import discover

    overrides = [word for word in words if _ASSIGNMENT.match(word) and not Path(word).exists()]
    folders = [path for word in words if (path := Path(word).expanduser()).is_dir() and _is_configuration(path)]
    if len(folders) == 1 and len(overrides) + 1 == len(words):
        yield folders[0], overrides
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "sample"
        config: Any = read_words(words)
        shards = len(discover(list(config.inputs), config.read.stdlib_characters).shards)
        most = f"read.most_per_shard={max(1, -(-sample // shards))}"
        run_built("corpus", read_words([*words, most]), corpus, dry_run=False, redo=False)
        yield corpus, []


def _print_rules(name: str, as_made: Replay, asked: Replay) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fledge.corpus.replay import ordered

    before = {name: effect.alone for name, effect in ordered(as_made)} if asked is not as_made else None
    shown = Table(title=f"{name}: what each rule does", title_justify="left", box=box.SIMPLE_HEAD)
    shown.add_column("rule")
    for column in ([] if before is None else ["refused"]) + ["refuses", "first", "only"]:
        shown.add_column(column, justify="right")
    for rule, effect in ordered(asked):
        was = [] if before is None else [f"{before.get(rule, 0):,}"]
        shown.add_row(rule, *was, *(f"{n:,}" for n in (effect.alone, effect.first, effect.only)))
    kept, pages = sum(asked.kept.values()), sum(asked.pages.values())
    console = Console(highlight=False)
    console.print(shown)
    console.print(f"{kept:,} of {pages:,} pages stay before duplicates are looked for", highlight=False)
    if before is not None:
        console.print(f"{asked.changed:,} pages are decided otherwise than when the corpus was made", highlight=False)
