"""The doors of `corpus/`: a corpus, questions to one, a classifier for its pages, the sources of its shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fledge.doors.options import ALONE, Corpus, DryRun, Keys, Out, Redo
from fledge.table import STAGES


class _Corpus(TyperGroup):
    """What is no question to a corpus is a corpus to be made."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["make", *args]
        return super().parse_args(ctx, args)


corpus = typer.Typer(
    cls=_Corpus,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help=f"{STAGES['corpus'].summary}\n\nExamples:\n\n    fledge corpus pages/ notes.jsonl --out my-corpus\n\n"
    "    fledge corpus corpus.yaml duplicates.jaccard=0.7 --out my-corpus\n\n    fledge corpus why my-corpus 3f2a",
)


@corpus.command("make")
def make_corpus(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT | CONFIG | KEY=VALUE]...",
            help="Files, folders, globs, python:stdlib; a YAML file of the stage; values to set.",
        ),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
    redo: Redo = False,
    keys: Keys = False,
) -> None:
    """Pages in, clean documents and a ledger of all that was left out. `make` may be left out.

    The last line on standard output is JSON: how many were read, kept, dropped, and could not be read.
    """
    from fledge.commands.corpus import make

    make(words or [], out, dry_run, redo, keys)


@corpus.command("report")
def report_of_corpus(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS | INPUT... [KEY=VALUE]...",
            help="Folder of a corpus, with values to look at it with; or inputs, of which a sample is judged.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The HTML file; CORPUS-report.html if not given.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Of inputs: about so many records.")] = 2000,
) -> None:
    """What each rule takes, alone and with the others; values with their thresholds; what stayed.

    With `key=value`, what other thresholds would do, from the values that were measured: no text is read again.

    Examples:

        fledge corpus report my-corpus rules.limits.en.words='{min: 50}'

        fledge corpus report pages/*.warc.gz --sample 2000
    """
    from fledge.commands.corpus import report

    report(words, out, sample)


@corpus.command("review")
def review_of_corpus(
    folder: Corpus,
    rule: Annotated[str, typer.Option(help="Only what left by this: STAGE or STAGE.RULE. `kept`: what stayed.")] = "",
    count: Annotated[int, typer.Option("-n", min=1, help="How many pages to judge.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Where judgements are kept; CORPUS-review.jsonl if not given.")
    ] = None,
) -> None:
    """Judge a sample of pages in the terminal, y or n: was it right that this one left (or stayed)?

    Judgements are kept as they are made; started again with the same draw, it goes on. It ends with the share that was
    right and its 95% interval.
    """
    from fledge.commands.review import review

    review(folder, rule, count, seed, out)


@corpus.command("why")
def why_of_corpus(
    folder: Corpus,
    document: Annotated[str, typer.Argument(metavar="ID", help="A document's id, or how it begins.")],
) -> None:
    """What became of a document, by which rule and value, and where it came from."""
    from fledge.commands.corpus import why

    why(folder, document)


@corpus.command("rules")
def rules_of_corpus(
    name: Annotated[str, typer.Argument(metavar="[SET]", help="A set's name; the sets if not given.")] = "",
) -> None:
    """The sets of rules that there are; or one: each of its rules, within which limits a page stays, after whom."""
    from fledge.commands.corpus import rules

    rules(name)


def train_classifier(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LABEL=PATH | CONFIG | KEY=VALUE]...",
            help="Sets of text, each a label; a YAML file of the stage; values to set.",
        ),
    ] = None,
    out: Out = None,
    dry_run: DryRun = False,
    redo: Redo = False,
    keys: Keys = False,
) -> None:
    """Train a classifier that tells sets of text apart, and show how good it is on texts kept from it.

    Examples:

        fledge train-classifier good=wiki.jsonl bad=crawl/ --out my-classifier

        fledge train-classifier good=corpus-a good=books/ bad=corpus-b features.order=3 --out my-classifier
    """
    from fledge.commands.classifier import make

    make(words or [], out, dry_run, redo, keys)


def sources(
    folder: Annotated[Path, typer.Argument(metavar="CORPUS | SHARDS", help="A corpus, or a folder of token shards.")],
) -> None:
    """Every source of a corpus or of token shards: kind, language, licence, documents, and characters or tokens.

    Examples:

        fledge sources runs/fledgling/corpus

        fledge sources runs/fledgling/shards
    """
    from fledge.corpus.registry import sources_of
    from fledge.corpus.writing.groups import table_of

    typer.echo("\n".join(table_of(sources_of(folder))))


def add_corpus(app: typer.Typer) -> None:
    app.command()(sources)
    app.add_typer(corpus, name="corpus", rich_help_panel=ALONE)
    app.command("train-classifier", rich_help_panel=ALONE)(train_classifier)
