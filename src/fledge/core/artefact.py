"""Artefacts: folders in open formats with a manifest that says from what they were made.

A stage works in a hidden folder beside the artefact's place (``.NAME.partial``) and renames it when whole. The
partial folder survives a kill, so a long stage finds its snapshots there. A finished artefact whose configuration,
inputs and seed match is skipped; one that no longer matches is never overwritten (DESIGN, "Artefact").
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from fledge.core.config import Config, WithPresets
from fledge.core.errors import ArtefactError

MANIFEST = "manifest.json"
DRAFT = "draft.json"
Inputs = Mapping[str, Path | Sequence[Path]]
_PACKAGES = ("fledge", "torch", "numpy", "tokenizers", "safetensors", "pyarrow", "fastwarc", "resiliparse")


@dataclass
class Work:
    """What a stage writes into while it makes an artefact."""

    out: Path
    folder: Path
    done: bool
    metrics: dict[str, Any] = field(default_factory=dict)
    # Names at the top of ``folder`` that only an interrupted stage needs; they go once the manifest is safe.
    transient: set[str] = field(default_factory=set)


@contextmanager
def produce(
    out: Path, *, kind: str, stage: str, config: Config, inputs: Inputs | None = None, seed: int = 0, redo: bool = False
) -> Iterator[Work]:
    """Make the artefact ``out``, or skip it (``work.done``) where a matching one is finished.

    Raises `ArtefactError` where a finished or a half-made artefact at this place has another identity, and where the
    hidden folder holds what is no half-made artefact.
    """
    out = Path(out)
    partial = out.parent / f".{out.name}.partial"
    facts: dict[str, Any] = {
        "kind": kind,
        "stage": stage,
        "config": config.plain(),
        "inputs": {name: _fingerprints(value) for name, value in sorted((inputs or {}).items())},
        "seed": seed,
        "paths": {name: _plain_paths(value) for name, value in sorted((inputs or {}).items())},
    }
    if isinstance(config, WithPresets) and (preset := config.preset_facts()):
        facts["preset"] = preset
    if redo:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
    if not out.exists() and is_finished(partial):  # killed between the manifest and the renaming
        _require_match(out, read_manifest(partial), facts, "half-made")
        _put_in_place(partial, out)
    if out.exists():
        _require_match(out, read_manifest(out), facts, "finished")
        yield Work(out, out, done=True)
        return
    draft = _open_draft(partial, out, facts)
    began = time.monotonic()
    work = Work(out, partial, done=False)
    try:
        yield work
    except BaseException:
        if partial.exists():
            write_json(partial / DRAFT, {**draft, "seconds_before": draft["seconds_before"] + time.monotonic() - began})
        raise
    _finish(work, {**draft, "seconds_before": draft["seconds_before"] + time.monotonic() - began}, facts)


def _open_draft(partial: Path, out: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The draft of a half-made artefact that matches, or a new one in a folder that is new or empty."""
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / DRAFT
    if path.exists():
        draft: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _require_match(out, draft, facts, "half-made")
        return draft
    if any(entry.name != f".{DRAFT}.tmp" for entry in partial.iterdir()):
        raise ArtefactError(
            f"{partial}: holds files but no {DRAFT}, so from what they were made is not known. Move it away or remove "
            f"it; {out.name} is then made from the beginning."
        )
    draft = {**facts, "seconds_before": 0.0, "started": _now()}
    write_json(path, draft)
    return draft


def _finish(work: Work, draft: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Manifest and renaming. What is needed to go on stays until the manifest is on the disk: a kill loses nothing."""
    write_json(work.folder / DRAFT, {**draft, "transient": sorted(work.transient)})
    manifest = {
        **facts,
        "name": work.out.name,
        "code": code_version(),
        "versions": versions(),
        "hardware": hardware(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": draft["started"],
        "finished": _now(),
        "seconds": round(draft["seconds_before"], 3),
        "metrics": work.metrics,
        "fingerprint": _hash_tree(work.folder, lambda path: _transient(path) or path.parts[0] in work.transient),
    }
    _sync_tree(work.folder)
    write_json(work.folder / MANIFEST, manifest)
    sync(work.folder)
    _put_in_place(work.folder, work.out)


def _put_in_place(partial: Path, out: Path) -> None:
    """What is left to do when the manifest is written; after a kill it is done again."""
    draft = partial / DRAFT
    if draft.exists():
        for name in json.loads(draft.read_text(encoding="utf-8")).get("transient", []):
            if (partial / name).is_dir():
                shutil.rmtree(partial / name)
            else:
                (partial / name).unlink(missing_ok=True)
        draft.unlink()
    os.replace(partial, out)
    sync(out.parent)


def read_manifest(folder: Path) -> dict[str, Any]:
    path = Path(folder) / MANIFEST
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(
            f"{folder}: has no {MANIFEST}, so it is not a finished artefact. Give another --out, or remove the folder."
        ) from None
    except ValueError as error:
        raise ArtefactError(f"{path}: damaged: {error}") from None
    if not isinstance(value, dict):
        raise ArtefactError(f"{path}: is not the manifest of an artefact: expected an object")
    return value


def is_finished(folder: Path) -> bool:
    return (Path(folder) / MANIFEST).exists()


def fingerprint(path: Path) -> str:
    """Hash of content: of a file, of an artefact (as its manifest recorded it), or of every file in a folder.

    Of a folder that is no artefact the files count that a corpus would read: all but what is hidden.
    """
    path = Path(path)
    if path.is_file():
        return _hash_file(path)
    if not path.is_dir():
        raise ArtefactError(f"{path}: there is no such file or folder")
    return _recorded(path) or _hash_tree(path, _unread)


def _recorded(folder: Path) -> str | None:
    """The fingerprint in an artefact's manifest; other programs too keep files of that name."""
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("kind", "stage")):
        return None
    found = value.get("fingerprint")
    return found if isinstance(found, str) else None


def _hash_tree(folder: Path, left_out: Callable[[Path], bool]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and not left_out(p.relative_to(folder))):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + _hash_file(file).encode())
    return digest.hexdigest()


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """What differs between two nested values, one line a leaf."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            where = f"{at}.{key}" if at else str(key)
            if key not in old:
                lines.append(f"{where}: new, {new[key]!r}")
            elif key not in new:
                lines.append(f"{where}: gone, was {old[key]!r}")
            else:
                lines += differences(old[key], new[key], where)
        return lines
    return [] if old == new else [f"{at}: was {old!r}, is {new!r}"]


def write_json(path: Path, value: Any) -> None:
    """Atomically: beside the place, synced, renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def code_version() -> dict[str, Any]:
    """Version, commit and whether the tree was dirty, where the code runs from a checkout."""
    result: dict[str, Any] = {"version": _version("fledge")}
    root = Path(__file__).parents[3]
    if (root / ".git").exists():
        try:
            commit = _git(root, "rev-parse", "HEAD")
            result |= {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}
        except (OSError, subprocess.SubprocessError):
            pass  # git is not installed, or refuses this checkout: the version has to do
    return result


def versions() -> dict[str, str]:
    found = {name: _version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **{name: value for name, value in found.items() if value}}


def hardware() -> dict[str, Any]:
    import psutil

    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _require_match(out: Path, old: Mapping[str, Any], facts: Mapping[str, Any], state: str) -> None:
    keys = ("kind", "stage", "config", "inputs", "seed")
    found = differences(
        _placeless({k: old.get(k) for k in keys}, old.get("paths", {})),
        _placeless({k: facts[k] for k in keys}, facts["paths"]),
    )
    if found:
        shown = "\n".join(f"  {line}" for line in found[:12])
        more = f"\n  ... and {len(found) - 12} more" if len(found) > 12 else ""
        raise ArtefactError(
            f"{out}: the {state} artefact here was made otherwise; nothing was changed.\n{shown}{more}\n"
            f"Make it again with --redo, or give another --out. In a recipe: --redo {out.name}, or another --name."
        )


def _placeless(value: Any, paths: Mapping[str, Any]) -> Any:
    """``value`` without where its inputs lie: they are matched by content, so a run may be moved or named otherwise."""
    names = {
        p: f"input {name} {i}" for name, at in paths.items() for i, p in enumerate([at] if isinstance(at, str) else at)
    }

    def replaced(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: replaced(v) for key, v in inner.items()}
        if isinstance(inner, list):
            return [replaced(v) for v in inner]
        return names.get(inner, inner) if isinstance(inner, str) else inner

    return replaced(value)


def _plain_paths(value: Path | Sequence[Path]) -> Any:
    if isinstance(value, (str, Path)):
        return str(value)
    return [str(item) for item in value]


def _fingerprints(value: Path | Sequence[Path]) -> Any:
    if isinstance(value, (str, Path)):
        return fingerprint(Path(value))
    return [fingerprint(Path(item)) for item in value]


def _transient(relative: Path) -> bool:
    """Files that are not part of what an artefact is: how long it took, drafts, snapshots to resume from."""
    top = relative.parts[0]
    return top in {MANIFEST, DRAFT, "snapshots", "tensorboard", "metrics.jsonl"} or top.startswith(".")


def _unread(relative: Path) -> bool:
    """Files of a folder of data that no stage reads (`fledge.corpus.reading.inputs`)."""
    return any(part.startswith(".") for part in relative.parts) or "__pycache__" in relative.parts[:-1]


def _hash_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Have what was written to a file or folder reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
