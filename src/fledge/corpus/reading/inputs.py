"""From what the user names (files, folders, globs, ``python:stdlib``) to shards: the units of work; how they are read.

The order of files and their grouping into shards depend on names and sizes alone, so every run, with any number of
workers, sees the same shards.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.corpus.reading.licences import is_licence_file, licence_of_folder

STDLIB = "python:stdlib"
SHARD_BYTES = 4 << 20
SHARD_FILES = 512

_FORMATS = {
    ".warc": "warc", ".wet": "warc", ".wat": "warc", ".html": "html", ".htm": "html", ".xhtml": "html",
    ".jsonl": "jsonl", ".json": "json", ".ndjson": "jsonl", ".parquet": "parquet",
    ".txt": "text", ".md": "text", ".markdown": "text", ".rst": "text", ".text": "text", ".org": "text",
    ".py": "code", ".pyi": "code", ".c": "code", ".h": "code", ".cc": "code", ".cpp": "code", ".hpp": "code",
    ".cu": "code", ".rs": "code", ".go": "code", ".java": "code", ".js": "code", ".ts": "code", ".sh": "code",
    ".rb": "code", ".scala": "code", ".kt": "code", ".swift": "code", ".sql": "code", ".lua": "code", ".jl": "code",
}  # fmt: skip
_UNSUPPORTED = {".csv", ".tsv", ".yaml", ".yml", ".xml", ".css", ".svg", ".arc"}


class ReadConfig(Config):
    """How inputs are read."""

    text_keys: tuple[str, ...] = Field(
        ("text", "content", "paragraphs"),
        min_length=1,
        description="keys of JSON objects, columns of Parquet, that hold the text (the first found): a text, a list of "
        "lines, or a list of objects, which are records themselves",
    )
    heading_keys: tuple[str, ...] = Field(
        (), description="keys whose texts stand above the text, a line each, as far as a record has them"
    )
    url_key: str = "url"
    stdlib_characters: int = Field(3_000_000, gt=0, description="cap of the input python:stdlib, in characters")
    split_characters: int = Field(20_000, ge=1_000, description="plain text is cut into pages near this length")
    most_per_shard: int = Field(0, ge=0, description="read only so many records of each shard, as a sample; 0: all")
    max_record_bytes: int = Field(
        64 << 20, gt=0, description="records, unpacked, and lines that are longer are refused, and never held whole"
    )
    licence_of: dict[str, str] = Field(
        default_factory=dict, description="source -> licence of its records that tell none; a source is an input's name"
    )
    licences: tuple[str, ...] = Field(
        (), description="SPDX names; if any are given, source code under another licence, or none known, is refused"
    )


@dataclass(frozen=True)
class Part:
    """One file of an input. ``label`` is how documents name it: stable, and free of where the run happens."""

    label: str
    path: Path
    format: str
    size: int = 0  # in bytes, as found; a file that is gone later must not stop the others
    licence: str = ""  # SPDX expression of the nearest licence file inside the input


@dataclass(frozen=True)
class Shard:
    """Files that one task reads, in order."""

    index: int
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class Inputs:
    """Everything to read, and by count what was passed over: what is hidden; and what is neither a file nor a folder
    of its own, which is a link to a folder or to nothing, a pipe, a device."""

    shards: tuple[Shard, ...]
    roots: dict[str, Path]  # label's first component -> where it is on this machine
    hidden: int
    files: dict[str, list[Path]]  # as named by the user -> files
    unread: int = 0


def discover(inputs: list[str], stdlib_characters: int) -> Inputs:
    """Find the files of all inputs.

    Raises `ConfigError` where an input names nothing, because a corpus without it would be another corpus.
    """
    parts: list[Part] = []
    roots: dict[str, Path] = {}
    files: dict[str, list[Path]] = {}
    hidden = unread = 0
    for text in inputs:
        if text == STDLIB:
            from fledge.corpus.reading.stdlib import stdlib_files, stdlib_root

            chosen = stdlib_files(stdlib_characters)
            roots[STDLIB] = stdlib_root()
            files[text] = [path for _, path in chosen]
            parts += [Part(f"{STDLIB}/{name}", path, "stdlib", path.stat().st_size, "PSF-2.0") for name, path in chosen]
            continue
        for path in _expand(text):
            name = _free_name(path.name or "root", roots)
            roots[name] = path
            found, passed, others = _walk(path)
            hidden, unread = hidden + passed, unread + others
            files.setdefault(text, []).extend(found)
            licences = _licences(path, found)
            for file in found:
                label = name if file == path else f"{name}/{file.relative_to(path).as_posix()}"
                parts.append(Part(label, file, format_of(file), _size(file), licences.get(file.parent, "")))
    return Inputs(tuple(_group(parts)), roots, hidden, files, unread)


def format_of(path: Path) -> str:
    """By name; ``unknown`` is looked into by the reader, ``unsupported`` goes to the ledger."""
    name = path.name.lower()
    for compressed in (".gz", ".zst"):
        name = name.removesuffix(compressed)
    suffix = os.path.splitext(name)[1]
    if suffix in _UNSUPPORTED:
        return "unsupported"
    return _FORMATS.get(suffix, "unknown")


def _expand(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_file() or path.is_dir():
        return [path]
    if path.exists():
        raise ConfigError(f"inputs: {text!r} is neither a file nor a folder. Write what it gives into a file.")
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    if not matches:
        raise ConfigError(
            f"inputs: {text!r} is no file, folder or pattern that matches something. Name an existing path, a glob "
            f"such as 'pages/*.warc.gz', or the built-in input {STDLIB!r}."
        )
    return matches


def _free_name(name: str, taken: dict[str, Path]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}~{number}" in taken:
        number += 1
    return f"{name}~{number}"


def _walk(path: Path) -> tuple[list[Path], int, int]:
    """Regular files below a folder, sorted by path, and how many entries were passed over: hidden, unread."""
    if not path.is_dir():
        return ([path], 0, 0) if path.is_file() else ([], 0, 1)
    found: list[Path] = []
    hidden = unread = 0
    closed: list[OSError] = []  # folders that cannot be listed
    for folder, folders, names in os.walk(path, onerror=closed.append):
        visible = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        hidden += len(folders) - len(visible)
        unread += sum((Path(folder) / name).is_symlink() for name in visible)  # os.walk does not go into them
        folders[:] = visible
        for name in names:
            if name.startswith("."):
                hidden += 1
            elif (Path(folder) / name).is_file():
                found.append(Path(folder) / name)
            else:
                unread += 1
    return sorted(found), hidden, unread + len(closed)


def _licences(root: Path, files: list[Path]) -> dict[Path, str]:
    """Folder -> licence of the nearest licence file, for the folders of these files, which are below ``root``."""
    own: dict[Path, list[Path]] = {}
    for file in files:
        if file != root and is_licence_file(file.name):
            own.setdefault(file.parent, []).append(file)
    if not own:
        return {}
    known = {folder: licence_of_folder(named) for folder, named in own.items()}
    nearest: dict[Path, str] = {}
    for folder in sorted({file.parent for file in files}):
        above = [place for place in (folder, *folder.parents) if place == root or root in place.parents]
        nearest[folder] = next((known[place] for place in above if place in known), "")
    return nearest


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # its reader will say why


def _group(parts: list[Part]) -> list[Shard]:
    """Consecutive files together, up to a size; a file that is larger is a shard alone."""
    shards: list[Shard] = []
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and (size + part.size > SHARD_BYTES or len(group) >= SHARD_FILES):
            shards.append(Shard(len(shards), tuple(group)))
            group, size = [], 0
        group.append(part)
        size += part.size
    if group:
        shards.append(Shard(len(shards), tuple(group)))
    return shards
