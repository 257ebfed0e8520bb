"""Ranks and sharding: one process, or torchrun with FSDP2. The same code either way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fledge.core.machine import ranks


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
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Mesh(dist.get_rank(), world, device)
    finally:
        dist.destroy_process_group()


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
    total = torch.tensor(list(values), dtype=torch.float64)
    if mesh.device.startswith("cuda"):
        total = total.to(mesh.device)
    dist.all_reduce(total)
    return [float(x) for x in total]


def names_over_ranks(names: Iterable[str], mesh: Mesh) -> list[str]:
    """What any rank names, sorted: ranks whose shares differ have other things to sum."""
    if not mesh.sharded:
        return sorted(names)
    text = torch.tensor(list("\n".join(sorted(names)).encode()), dtype=torch.uint8, device=mesh.device)
    size = torch.tensor(len(text), device=mesh.device)
    dist.all_reduce(size, dist.ReduceOp.MAX)
    padded = torch.zeros(int(size), dtype=torch.uint8, device=mesh.device)  # no name has a byte of 0
    padded[: len(text)] = text
    every = [torch.empty_like(padded) for _ in range(mesh.world)]
    dist.all_gather(every, padded)
    lines = [bytes(one.tolist()).rstrip(b"\0").decode().split("\n") for one in every]
    return sorted({name for one in lines for name in one if name})


def barrier(mesh: Mesh) -> None:
    if mesh.sharded:
        dist.barrier()


def local(tensor: Tensor) -> Tensor:
    """A sharded tensor's part on this rank; a plain tensor as it is."""
    part = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()
