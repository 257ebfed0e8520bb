"""Optimizers: torch's AdamW, and Muon, with groups by the shape and role of a parameter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.core.machine import compute_dtype
from fledge.train.merging import Merging, MergingConfig, task_vectors
from fledge.train.mesh import local
from fledge.train.muon import Muon, bare
from fledge.train.schedule import ScheduleConfig


class OptimizerConfig(Config):
    """Defaults are Qwen1's (SPEC A.2, H.1): AdamW .9/.95, 1e-8, decay .1, clip 1."""

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.95, description="muon")
    schedule: ScheduleConfig = ScheduleConfig()
    merging: MergingConfig | None = Field(
        default=None, description="merge each step with what fine-tuning has taught: Online Merging Optimizer"
    )


class _AdamW(torch.optim.AdamW):
    add_param_group = bare(torch.optim.AdamW.add_param_group)
    zero_grad = bare(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(bare(torch.optim.AdamW.step))


Optimizer = torch.optim.Optimizer | Merging


def make_optimizers(module: nn.Module, config: OptimizerConfig, sharded: bool = False) -> list[Optimizer]:
    """AdamW for all, or Muon for the matrices of the blocks and AdamW for the rest. No decay on vectors. Each wrapped
    where steps are to be merged.

    Muon's rate is scaled to match AdamW's update size (train/muon.py), so one ``lr`` serves both.
    """
    if config.name == "muon" and sharded:
        raise ConfigError("optimizer.name=muon: Muon needs whole matrices and does not run sharded; use adamw")
    matrices, decayed, plain = [], [], []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            plain.append(parameter)
        elif config.name == "muon" and ".layers." in name:
            matrices.append(parameter)
        else:
            decayed.append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(
            Muon(
                matrices, lr=config.lr, weight_decay=config.weight_decay, momentum=config.momentum,
                dtype=compute_dtype("auto"),
            )
        )  # fmt: skip
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers.append(
        _AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    )
    if config.merging is None:
        return list(optimizers)
    tau = task_vectors(module, config.merging)
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return [Merging(optimizer, tau, names, config.merging) for optimizer in optimizers]


def set_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def optimizer_state(module: nn.Module, optimizers: Iterable[Optimizer]) -> dict[str, Tensor]:
    """Flat: ``<parameter name>|<entry>`` -> tensor (this rank's shard where sharded)."""
    names: dict[Any, str] = {parameter: name for name, parameter in module.named_parameters()}
    flat: dict[str, Tensor] = {}
    for optimizer in optimizers:
        for parameter, entries in optimizer.state.items():
            for key, value in entries.items():
                flat[f"{names[parameter]}|{key}"] = local(torch.as_tensor(value))
    return flat


def load_optimizer_state(
    module: nn.Module, optimizers: Iterable[Optimizer], flat: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_state`, into freshly made optimizers."""
    entries: dict[str, dict[str, Tensor]] = {}
    for key, value in flat.items():
        name, _, entry = key.rpartition("|")
        entries.setdefault(name, {})[entry] = value
    owners = {parameter: o for o in optimizers for group in o.param_groups for parameter in group["params"]}
    for name, parameter in module.named_parameters():
        if name in entries:
            state: dict[str, Any] = {key: _like(value, parameter) for key, value in entries[name].items()}
            owners[parameter].state[parameter] = state


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    # fused AdamW counts its steps on the parameter's device
    if value.ndim == 0 or not isinstance(parameter, DTensor):
        return value.to(parameter.device)
    return DTensor.from_local(
        value, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
