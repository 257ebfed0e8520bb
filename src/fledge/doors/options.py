"""What several doors take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ALONE = "Stages, one at a time"  # their panel in `fledge --help`

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values to set, dots between levels.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print configuration, size, memory and time; run nothing.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder of a known architecture.")]
Corpus = Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a corpus.")]

# Of a stage that runs alone:
Out = Annotated[Path | None, typer.Option(help="Folder of the artefact (required).")]
Redo = Annotated[bool, typer.Option("--redo", help="Make it again where a finished one exists.")]
Keys = Annotated[bool, typer.Option("--keys", help="Print every key with its type, default and meaning.")]
