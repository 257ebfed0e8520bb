"""Ranks and sharding: one process, or torchrun with FSDP2. The same code either way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fledge.core.errors import FledgeError
from fledge.core.machine import ranks

T = TypeVar("T")

# How long ranks wait for each other: as long as the first may sample and score a rollout (`from_first`). A rank that
# ended is noticed at once by torchrun, which ends the others.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Mesh:
    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def sharded(self) -> bool:
        return self.world > 1

    @property
    def first(self) -> bool:
        return self.rank == 0


# Seconds that gloo's threads have to let go of the last collective's tensors. One that is late, on a busy machine, does
# so while the interpreter ends, and aborts a process that has done all its work (pytorch#179291).
SETTLE = 0.2


@contextmanager
def open_mesh(device: str = "cpu") -> Iterator[Mesh]:
    """The process group that torchrun describes, else a mesh of one."""
    world = ranks()
    if world == 1 or dist.is_initialized():
        yield Mesh(dist.get_rank(), dist.get_world_size(), device) if dist.is_initialized() else Mesh(device=device)
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Mesh(dist.get_rank(), world, device)
        dist.barrier()  # ranks leave together
    finally:
        dist.destroy_process_group()
        if not device.startswith("cuda"):
            time.sleep(SETTLE)


def shard(module: nn.Module, mesh: Mesh, dtype: torch.dtype) -> nn.Module:
    """Shard parameters over the ranks (FSDP2): every block a unit, and the rest (embedding, norm, head) one more.

    Parameters stay float32; blocks compute in ``dtype``; gradients are reduced in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    ranks = init_device_mesh(mesh.device.partition(":")[0], (mesh.world,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in module.model.layers:  # type: ignore[union-attr]
        fully_shard(block, mesh=ranks, mp_policy=policy)
    fully_shard(module, mesh=ranks, mp_policy=policy, reshard_after_forward=False)
    return module


def sum_over_ranks(values: Sequence[float], mesh: Mesh) -> list[float]:
    if not mesh.sharded:
        return list(values)
    total = torch.tensor(list(values), dtype=torch.float64, device=_wire(mesh))
    dist.all_reduce(total)
    return [float(x) for x in total]


def names_of_ranks(names: Sequence[str], mesh: Mesh) -> list[str]:
    """Sorted, those that any rank has (a collective call; names without line breaks)."""
    if not mesh.sharded:
        return sorted(names)
    own = torch.tensor(list("\n".join(names).encode()), dtype=torch.uint8, device=_wire(mesh))
    sizes = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(mesh.world)]
    dist.all_gather(sizes, torch.tensor([len(own)], device=own.device))
    room = max(int(size) for size in sizes)
    texts = [torch.empty(room, dtype=torch.uint8, device=own.device) for _ in range(mesh.world)]
    dist.all_gather(texts, torch.nn.functional.pad(own, (0, room - len(own))))
    told = [bytes(text[: int(size)].tolist()).decode() for text, size in zip(texts, sizes, strict=True)]
    return sorted({name for line in told for name in line.split("\n") if name})


def barrier(mesh: Mesh) -> None:
    if mesh.sharded:
        dist.barrier()


def from_first(make: Callable[[], T], mesh: Mesh, write: Callable[[T], Any], read: Callable[[Any], T]) -> T:
    """What ``make`` gives on the first rank, on every rank (a collective call; with one rank ``make()`` alone).

    For what two processes may answer differently: a clock, a user's function, a model elsewhere. ``write`` makes JSON
    of it, of which ``read`` makes the same again. What ``make`` raises on the first rank is raised there, and on the
    others as a FledgeError of the same message, so that all stop.
    """
    if not mesh.sharded:
        return make()
    if not mesh.first:
        message = json.loads(_from_first("", mesh))
        if "error" in message:
            raise FledgeError(message["error"])
        return read(message["value"])
    try:
        made = make()
        line = json.dumps({"value": write(made)})
    except Exception as problem:
        kind = "" if isinstance(problem, FledgeError) else f"{type(problem).__name__}: "
        _from_first(json.dumps({"error": f"{kind}{problem}"}), mesh)
        raise
    _from_first(line, mesh)
    return made


def only_first(make: Callable[[], T], mesh: Mesh) -> T | None:
    """What ``make`` gives on the first rank, and None on the others (a collective call; errors as in `from_first`)."""
    made: list[T] = []
    from_first(lambda: made.append(make()), mesh, lambda _: None, lambda _: None)
    return made[0] if made else None


def _from_first(line: str, mesh: Mesh) -> str:
    """The first rank's line, on all. Bytes, not objects: nobody reads a pickle."""
    device = _wire(mesh)
    own = torch.frombuffer(bytearray(line.encode()), dtype=torch.uint8) if line else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor([len(own)], device=device)
    dist.broadcast(size, 0)
    sent = own.to(device) if mesh.first else torch.empty(int(size), dtype=torch.uint8, device=device)
    dist.broadcast(sent, 0)
    return sent.cpu().numpy().tobytes().decode()


def _wire(mesh: Mesh) -> str:
    """Where what travels between ranks must lie."""
    return mesh.device if mesh.device.startswith("cuda") else "cpu"


def local(tensor: Tensor) -> Tensor:
    """A sharded tensor's part on this rank; a plain tensor as it is."""
    part = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()
