"""Online Merging Optimizer (Lu et al. 2024, 2405.17931): each update is merged with what fine-tuning has taught.

tau = sft - base is what supervised fine-tuning did to the weights. Each step of an optimizer, delta, is thinned, scaled
by 1 - alpha and joined by alpha x tau, so that training for a reward does not wander off from it: less alignment tax.

- dare: every element of delta and of tau is kept with probability ``keep``, drawn anew for each step
- ties: of delta and of tau the largest ``keep`` of a tensor's elements count; where their signs differ, the larger one

Any torch optimizer can be wrapped: delta is the difference that its step makes, weight decay included.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.model.hf import model_tensors
from fledge.train.mesh import local

VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")  # matrices with a row for each token
REPO_CLAMP = 1.0  # the authors' code clamps tau's elements to this
_BLOCK = 1 << 20  # elements whose random numbers are made at once
# splitmix64 (Steele, Lea, Flood 2014), as signed numbers
_GAMMA, _MIX1, _MIX2 = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class MergingConfig(Config):
    """``base`` and ``sft`` are whole models: there is no merging of adapters."""

    base: Path = Field(description="model folder before fine-tuning")
    sft: Path = Field(description="model folder after fine-tuning, as a rule the one that training starts from")
    method: Literal["dare", "ties"] = "dare"
    variant: Literal["paper", "repo"] = Field(
        default="paper",
        description="repo: what the authors' code does instead: dare divides what is kept by keep, draws tau's mask "
        "once and clamps tau to 1; ties elects the sign of the unweighted sum delta + tau",
    )
    alpha: float = Field(
        default=1e-7, ge=0, lt=1, description="weight of tau in a step; steps x alpha is how far weights are drawn"
    )
    keep: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of elements that count. With dare and variant=paper a step moves each element with this "
        "probability and is not enlarged for it: the rate is to be raised as this falls",
    )
    every: int = Field(default=1, gt=0, description="merge after so many steps, the sum of them at once")
    store: Literal["float32", "bfloat16"] = Field(default="float32", description="how tau is kept: 4 or 2 bytes each")
    carry: bool = Field(
        default=True,
        description="keep what rounding to float32 takes from alpha x tau and add it the next time: 4 bytes each. "
        "Without it, what is below half a unit in the last place of a weight is lost every time",
    )
    seed: int = Field(default=0, description="of the masks")

    @property
    def bytes_a_weight(self) -> int:
        """What it takes beside the wrapped optimizer: tau, what rounding took, and the weights at the last merge."""
        return (4 if self.store == "float32" else 2) + (4 if self.carry else 0) + 4


class Merging:
    """An optimizer whose steps are merged with ``tau``; has what the trainer needs of one.

    Its state lies in the wrapped optimizer's, under names that begin with ``merging_``, so that ``state_dict`` and
    snapshots hold it: the number of steps, the weights at the last merge (with ``every`` > 1), what rounding took.
    Masks follow from seed, name, step and the element's place in the whole tensor: the same when a run goes on, on any
    device, and however the tensor is sharded.

    ``tau``: for each parameter, this rank's shard. ``names``: for each parameter, what tells it from the others.
    Parameters without a gradient are left alone. Raises `ConfigError` for weights below float32, whose last place is
    larger than any alpha x tau, and for ties on shards, whose threshold is one of the whole tensor.
    """

    def __init__(
        self, inner: torch.optim.Optimizer, tau: Mapping[Tensor, Tensor], names: Mapping[Tensor, str],
        config: MergingConfig,
    ) -> None:  # fmt: skip
        self.inner, self.config, self.names = inner, config, names
        self.tau: dict[Tensor, Tensor] = {}
        self._offset: dict[Tensor, int] = {}
        for parameter in (p for group in inner.param_groups for p in group["params"]):
            name = names[parameter]
            if parameter.dtype not in (torch.float32, torch.float64):
                raise ConfigError(f"merging: {name} is {parameter.dtype}: its weights must be float32 or float64")
            if config.method == "ties" and _is_sharded(parameter):
                raise ConfigError("merging.method=ties: needs whole tensors and does not run sharded; use dare")
            self._offset[parameter] = _first_element(parameter)
            self.tau[parameter] = self._prepared(tau[parameter], parameter)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.inner.param_groups

    @property
    def state(self) -> Any:
        return self.inner.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)

    @property
    def bytes(self) -> int:
        """What tau takes."""
        return sum(tau.numel() * tau.element_size() for tau in self.tau.values())

    @torch.no_grad()
    def step(self) -> None:
        trained = [p for group in self.inner.param_groups for p in group["params"] if p.grad is not None]
        starts = {}  # weights at the last merge
        for parameter in trained:
            kept = self.inner.state[parameter].get("merging_start") if parameter in self.inner.state else None
            starts[parameter] = local(parameter).clone() if kept is None else local(kept)
        self.inner.step()
        for parameter in trained:
            state = self.inner.state[parameter]
            step = int(state.get("merging_step", 0)) + 1
            state["merging_step"] = torch.tensor(step)
            if step % self.config.every:
                state["merging_start"] = starts[parameter]
            else:
                state.pop("merging_start", None)
                self._merge(parameter, starts[parameter], step)

    def _merge(self, parameter: Tensor, start: Tensor, step: int) -> None:
        """weights <- where(mask, new - alpha·(new - start), start) + alpha·F(tau): with alpha 0 and keep 1 the new
        weights themselves, to the last bit (paper, eq. 5; its algorithm 2 where ``every`` > 1)."""
        config, new = self.config, local(parameter)
        delta = new - start
        if config.method == "ties":
            moved, added = self._ties(parameter, delta)
        else:
            moved, added = self._dare(parameter, step)
        retreat = config.alpha
        if config.method == "dare" and config.variant == "repo":
            retreat = 1 - (1 - config.alpha) / config.keep
        merged = torch.where(moved, new - retreat * delta, start)
        if config.carry:
            state = self.inner.state[parameter]
            if (carried := state.get("merging_carry")) is not None:
                added = added + local(carried)
            new.copy_(merged + added)
            state["merging_carry"] = added - (new - merged)
        else:
            new.copy_(merged + added)

    def _dare(self, parameter: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Where delta counts, and alpha·F(tau)."""
        tau = self.tau[parameter].to(parameter.dtype)
        moved = self._mask(parameter, "delta", step)
        if self.config.variant == "paper":
            tau = torch.where(self._mask(parameter, "tau", step), tau, 0)
        return moved, self.config.alpha * tau

    def _ties(self, parameter: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        config, tau = self.config, self.tau[parameter].to(parameter.dtype)
        kept = _largest(delta, config.keep, config.variant)
        added = config.alpha * tau
        thinned = torch.where(kept, delta, 0)
        if config.variant == "repo":
            sign = torch.sign(thinned + tau)
            return kept & (torch.sign(delta) == sign), torch.where(torch.sign(tau) == sign, added, 0)
        own = (1 - config.alpha) * thinned
        agree = torch.sign(own) == torch.sign(added)
        larger = own.abs() >= added.abs()
        return kept & (agree | larger), torch.where(agree | ~larger, added, 0)

    def _prepared(self, tau: Tensor, parameter: Tensor) -> Tensor:
        """tau with what is done to it once and for all."""
        config = self.config
        if config.method == "ties":
            tau = torch.where(_largest(tau, config.keep, config.variant), tau, 0)
        elif config.variant == "repo":
            mask = self._mask(parameter, "tau", 0)
            tau = torch.where(mask, tau / config.keep, 0).clamp(-REPO_CLAMP, REPO_CLAMP)
        return tau.to(getattr(torch, config.store))

    def _mask(self, parameter: Tensor, what: str, step: int) -> Tensor:
        shape = local(parameter).shape
        text = f"{self.config.seed}|{self.names[parameter]}|{what}|{step}"
        key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
        flat = random_mask(shape.numel(), self.config.keep, key, self._offset[parameter], parameter.device)
        return flat.view(shape)


def random_mask(count: int, keep: float, key: int, offset: int, device: torch.device | str = "cpu") -> Tensor:
    """(count,) bool, each true with probability ``keep``. Element i follows from ``key`` and ``offset`` + i alone:
    splitmix64's numbers, in torch's operations, so that they are the same on every device."""
    mask = torch.empty(count, dtype=torch.bool, device=device)
    last = min(round(keep * 2**64), 2**64) - 2**63 - 1  # the largest of the 64-bit numbers that keep
    for begin in range(0, count, _BLOCK):
        end = min(count, begin + _BLOCK)
        z = torch.arange(offset + begin + 1, offset + end + 1, dtype=torch.int64, device=device)
        z.mul_(_GAMMA).add_(key)
        for shift, factor in ((30, _MIX1), (27, _MIX2), (31, 1)):
            z ^= (z >> shift) & ((1 << (64 - shift)) - 1)  # >> repeats the sign
            z.mul_(factor)
        torch.le(z, last, out=mask[begin:end])
    return mask


def _largest(tensor: Tensor, keep: float, variant: str) -> Tensor:
    """Where the largest ``keep`` of the elements by magnitude are, at least one; of equal ones at the threshold all.
    The authors' code rounds the number down, and trims nothing where that is 0."""
    size = tensor.abs().flatten()
    count = math.floor(keep * len(size)) or len(size) if variant == "repo" else math.ceil(keep * len(size))
    if count == len(size):
        return torch.ones_like(tensor, dtype=torch.bool)
    return tensor.abs() >= torch.kthvalue(size, len(size) - count + 1).values


def task_vectors(module: nn.Module, config: MergingConfig) -> dict[Tensor, Tensor]:
    """tau of every trained parameter, in float32: this rank's shard, where there are several.

    Rows that only one of three vocabularies has (base, sft, the model in training) get 0, and so does what neither
    folder has, such as the head of a reward model. Raises `ConfigError` where the folders are not of one architecture
    with the model, or hold none of what is trained, as with adapters.
    """
    base = {name: tensor for _, name, tensor in model_tensors(config.base)}
    sft = {name: tensor for _, name, tensor in model_tensors(config.sft)}
    result: dict[Tensor, Tensor] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if (name in base) != (name in sft):
            lacks, has = (config.sft, config.base) if name in base else (config.base, config.sft)
            raise ConfigError(f"merging: {name} is in {has} but not in {lacks}: they are not of one architecture")
        whole = torch.zeros(parameter.shape)
        if name in base:
            before, after = base.pop(name), sft.pop(name)
            fixed = 1 if name in VOCABULARY else 0  # dimensions that may differ
            shapes = [list(tensor.shape) for tensor in (whole, before, after)]
            if any(shape[fixed:] != shapes[0][fixed:] for shape in shapes):
                raise ConfigError(
                    f"merging: {name} is {shapes[0]} in the model, {shapes[1]} in {config.base} and {shapes[2]} in "
                    f"{config.sft}"
                )
            rows = min(shape[0] for shape in shapes)
            whole[:rows] = after[:rows].float() - before[:rows].float()
        result[parameter] = _part(whole, parameter)
    if not any(bool(tau.any()) for tau in result.values()):
        raise ConfigError(
            f"merging: between {config.base} and {config.sft} no weight differs that is trained here. Give the model "
            "before fine-tuning and the one after it; adapters (LoRA) cannot be merged"
        )
    return result


def _is_sharded(parameter: Tensor) -> bool:
    return hasattr(parameter, "to_local")


def _part(whole: Tensor, parameter: Tensor) -> Tensor:
    """What this rank holds of a tensor that is sharded as ``parameter`` is."""
    whole = whole.to(parameter.device)
    if not _is_sharded(parameter):
        return whole
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return local(distribute_tensor(whole, mesh, placements, src_data_rank=None)).clone()


def _first_element(parameter: Tensor) -> int:
    """Where this rank's shard begins in the whole tensor: FSDP2 cuts whole rows."""
    if not _is_sharded(parameter):
        return 0
    rows = _part(torch.arange(len(parameter)), parameter)
    return int(rows[0]) * (parameter.numel() // len(parameter)) if len(rows) else 0
