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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from fledge.core.config import Config
from fledge.core.errors import ArtefactError

MANIFEST = "manifest.json"
DRAFT = "draft.json"
Inputs = Mapping[str, Path | Sequence[Path]]
_PACKAGES = ("fledge", "torch", "numpy", "tokenizers", "safetensors", "pyarrow", "duckdb", "fastwarc", "resiliparse")


@dataclass
class Work:
    """What a stage writes into while it makes an artefact."""

    out: Path
    folder: Path
    done: bool
    metrics: dict[str, Any] = field(default_factory=dict)


@contextmanager
def produce(
    out: Path, *, kind: str, stage: str, config: Config, inputs: Inputs | None = None, seed: int = 0, redo: bool = False
) -> Iterator[Work]:
    """Make the artefact ``out``, or skip it (``work.done``) where a matching one is finished.

    Raises `ArtefactError` where a finished or a half-made artefact at this place has another identity.
    """
    out = Path(out)
    partial = out.parent / f".{out.name}.partial"
    identity = {
        "kind": kind,
        "stage": stage,
        "config": config.plain(),
        "inputs": {name: _fingerprints(value) for name, value in sorted((inputs or {}).items())},
        "seed": seed,
    }
    paths = {name: _plain_paths(value) for name, value in sorted((inputs or {}).items())}
    if redo:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)
    if out.exists():
        _require_match(out, read_manifest(out), {**identity, "paths": paths}, "finished")
        yield Work(out, out, done=True)
        return
    partial.mkdir(parents=True, exist_ok=True)
    draft = partial / DRAFT
    if draft.exists():
        _require_match(out, json.loads(draft.read_text(encoding="utf-8")), {**identity, "paths": paths}, "half-made")
        earlier = json.loads(draft.read_text(encoding="utf-8"))["seconds_before"]
    else:
        earlier = 0.0
        write_json(draft, {**identity, "paths": paths, "seconds_before": 0.0, "started": _now()})
    started = time.monotonic()
    work = Work(out, partial, done=False)
    try:
        yield work
    except BaseException:
        if partial.exists():
            record = json.loads(draft.read_text(encoding="utf-8"))
            write_json(draft, {**record, "seconds_before": earlier + time.monotonic() - started})
        raise
    first = json.loads(draft.read_text(encoding="utf-8"))["started"]
    draft.unlink()
    manifest = {
        **identity,
        "paths": paths,
        "name": out.name,
        "code": code_version(),
        "versions": versions(),
        "hardware": hardware(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": first,
        "finished": _now(),
        "seconds": round(earlier + time.monotonic() - started, 3),
        "metrics": work.metrics,
        "fingerprint": fingerprint(partial),
    }
    write_json(partial / MANIFEST, manifest)
    _sync_tree(partial)
    os.replace(partial, out)
    _sync(out.parent)


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
    assert isinstance(value, dict)
    return value


def is_finished(folder: Path) -> bool:
    return (Path(folder) / MANIFEST).exists()


def fingerprint(path: Path) -> str:
    """Hash of content: of a file, of an artefact (as its manifest recorded it), or of every file in a folder."""
    path = Path(path)
    if path.is_file():
        return _hash_file(path)
    if (path / MANIFEST).exists():
        return str(read_manifest(path)["fingerprint"])
    if not path.is_dir():
        raise ArtefactError(f"{path}: there is no such file or folder")
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in path.rglob("*") if p.is_file() and not _transient(p.relative_to(path))):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + _hash_file(file).encode())
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


def _require_match(out: Path, old: Mapping[str, Any], identity: Mapping[str, Any], state: str) -> None:
    keys = ("kind", "stage", "config", "inputs", "seed")
    found = differences(
        _placeless({k: old.get(k) for k in keys}, old.get("paths", {})),
        _placeless({k: identity[k] for k in keys}, identity["paths"]),
    )
    if found:
        shown = "\n".join(f"  {line}" for line in found[:12])
        more = f"\n  ... and {len(found) - 12} more" if len(found) > 12 else ""
        raise ArtefactError(
            f"{out}: the {state} artefact here was made otherwise; nothing was changed.\n{shown}{more}\n"
            f"Make it again with --redo {out.name}, or choose another name."
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


def _hash_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
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
