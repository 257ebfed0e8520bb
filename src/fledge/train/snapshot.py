"""Snapshots: everything that shapes the future, copied at one step boundary.

Tensors in safetensors, one file a rank, the rest in JSON; no pickle. A new folder is written and synced, then one
small pointer file is replaced, so a kill or a full disk at any moment leaves the last good snapshot. Two are kept.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fledge.core.artefact import write_json
from fledge.core.errors import ArtefactError
from fledge.train.mesh import Mesh, barrier, local
from fledge.train.optimizer import load_optimizer_state, optimizer_state
from fledge.train.trainee import Trainee

POINTER = "latest.json"
KEEP = 2


def save_snapshot(
    folder: Path, step: int, trainees: Mapping[str, Trainee], state: Mapping[str, Any], mesh: Mesh
) -> Path:
    """Write ``folder/step-N`` and point to it. ``state`` is JSON. Raises `ArtefactError` where the disk is full."""
    place = folder / f"step-{step:08d}"
    try:
        if mesh.first:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        barrier(mesh)
        _write(place / f"rank-{mesh.rank}.safetensors", save(_tensors(trainees)))
        barrier(mesh)
        if mesh.first:
            write_json(place / "state.json", {"step": step, "world": mesh.world, **state})
            _sync_folder(place)
            write_json(folder / POINTER, {"snapshot": place.name})
            _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        kept = latest(folder)
        last = f"The last good snapshot is {kept}." if kept else "There is no earlier snapshot."
        raise ArtefactError(
            f"{place}: the snapshot could not be written: {error.strerror or error}. {last} "
            "Make room and start the same command again."
        ) from error
    if mesh.first:
        _prune(folder, place)
    return place


def _prune(folder: Path, written: Path) -> None:
    """Keep ``written`` and whole ones before it. A kill may have left a folder of a later step, which the pointer
    never named."""
    found = sorted(folder.glob("step-*"))
    kept = [place for place in found if place.name <= written.name and (place / "state.json").exists()][-KEEP:]
    for old in found:
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The snapshot that the pointer names, or None."""
    pointer = folder / POINTER
    if not pointer.exists():
        return None
    try:
        place = folder / str(json.loads(pointer.read_text(encoding="utf-8"))["snapshot"])
    except (ValueError, KeyError) as error:
        raise ArtefactError(f"{pointer}: damaged: {error}. Remove the folder to start anew.") from None
    if not (place / "state.json").exists():
        raise ArtefactError(f"{place}: is named by {pointer.name} but is not whole. Remove {folder} to start anew.")
    return place


def load_snapshot(folder: Path, trainees: Mapping[str, Trainee], mesh: Mesh) -> dict[str, Any] | None:
    """Restore trainees and the generators of random numbers from the latest snapshot; returns its state, or None."""
    place = latest(folder)
    if place is None:
        return None
    state: dict[str, Any] = json.loads((place / "state.json").read_text(encoding="utf-8"))
    if state["world"] != mesh.world:
        raise ArtefactError(
            f"{place}: was written by {state['world']} ranks, but there are {mesh.world} now. "
            f"Start with {state['world']}, or remove {folder} to start anew."
        )
    tensors = load_file(place / f"rank-{mesh.rank}.safetensors")
    for name, trainee in trainees.items():
        _restore(trainee, _below(tensors, f"{name}/model/"), _below(tensors, f"{name}/optimizer/"))
    torch.set_rng_state(tensors["random/torch"])
    return state


def _tensors(trainees: Mapping[str, Trainee]) -> dict[str, Tensor]:
    tensors = {"random/torch": torch.get_rng_state()}
    for name, trainee in trainees.items():
        for key, parameter in trainee.decoder.named_parameters():
            if not parameter.requires_grad:  # what is frozen is what the run began from, an input
                continue
            tensors[f"{name}/model/{key}"] = local(parameter).contiguous()
        for key, value in optimizer_state(trainee.decoder, trainee.optimizers).items():
            tensors[f"{name}/optimizer/{key}"] = value.contiguous()
    return tensors


@torch.no_grad()
def _restore(trainee: Trainee, model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> None:
    for key, parameter in trainee.decoder.named_parameters():
        if parameter.requires_grad:
            local(parameter).copy_(model[key])
    load_optimizer_state(trainee.decoder, trainee.optimizers, optimizer)
    trainee.refresh()


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
