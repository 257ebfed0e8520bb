"""``fledge lineage``: from what an artefact, a document or a token of a batch was made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from fledge.commands.text import plain
from fledge.core.artefact import MANIFEST, is_finished, read_manifest
from fledge.core.errors import ArtefactError, ConfigError
from fledge.core.progress import duration


def lineage(artefact: Path, document: str | None, step: int | None, token: int | None) -> None:
    artefact = artefact.expanduser()
    if document is not None:
        from fledge.corpus.lineage import describe as of_document

        _show(of_document(artefact, document))
    elif step is not None or token is not None:
        if step is None or token is None:
            raise ConfigError("a token of a training batch is named by two numbers: --step N --token POSITION")
        from fledge.stages.lineage import describe as of_token

        _show(of_token(artefact, step, token))
    else:
        Console(highlight=False).print(tree(artefact))


def _show(lines: Iterable[str]) -> None:
    console = Console(highlight=False)
    for line in lines:
        console.print(Text(plain(str(line))), soft_wrap=True)


def tree(artefact: Path) -> Tree:
    """The artefact and, below it, what it was made from, by its manifest."""
    seen: set[Path] = set()
    root = Tree(_label(artefact))
    _grow(root, artefact, seen)
    return root


def _grow(node: Tree, artefact: Path, seen: set[Path]) -> None:
    seen.add(artefact.resolve())
    for name, path, recorded in input_paths(artefact):
        owner = owner_of(path, artefact)
        if owner is None:
            node.add(Text.assemble((f"{name}: ", "dim"), plain(str(path)), _state(path, recorded)))
            continue
        inside = f"  ({path.name})" if path.name != owner.name else ""
        branch = node.add(Text.assemble((f"{name}: ", "dim"), _label(owner), inside))
        if owner.resolve() in seen:
            branch.add(Text("as above", style="dim"))
        else:
            _grow(branch, owner, seen)


def input_paths(artefact: Path) -> list[tuple[str, Path, Any]]:
    """(name, path, recorded fingerprint) of every input that the manifest names."""
    manifest = read_manifest(artefact)
    result: list[tuple[str, Path, Any]] = []
    for name, at in manifest.get("paths", {}).items():
        prints = manifest["inputs"].get(name)
        places = [at] if isinstance(at, str) else at
        marks = prints if isinstance(prints, list) else [prints]
        result += [(name, Path(place), mark) for place, mark in zip(places, marks, strict=False)]
    return result


def owner_of(path: Path, artefact: Path) -> Path | None:
    """The artefact that holds an input, where it lay, or beside ``artefact`` if the run was moved since."""
    for start in (path, artefact.parent / path.name, artefact.parent / path.parent.name / path.name):
        for folder in (start, *start.parents):
            if folder.name and (folder / MANIFEST).exists():
                return folder
    return None


def _state(path: Path, recorded: Any) -> Text:
    from fledge.core.artefact import fingerprint

    if not path.exists():
        return Text("  (no longer there)", style="yellow")
    try:
        same = fingerprint(path) == recorded
    except ArtefactError:
        same = False
    return Text("") if same else Text("  (changed since)", style="yellow")


def _label(artefact: Path) -> Text:
    if not is_finished(artefact):
        read_manifest(artefact)  # says what is wrong
    manifest = read_manifest(artefact)
    commit = str(manifest.get("code", {}).get("commit", ""))[:10]
    dirty = ", changed files" if manifest.get("code", {}).get("dirty") else ""
    code = f"{manifest.get('code', {}).get('version', '')}{f' at {commit}' if commit else ''}{dirty}"
    return Text.assemble(
        (plain(str(artefact)), "bold"),
        (f"  {manifest['stage']}, seed {manifest['seed']}, {duration(manifest.get('seconds', 0))}, ", "dim"),
        (f"{str(manifest.get('finished', ''))[:16].replace('T', ' ')}, fledge {code}", "dim"),
    )
