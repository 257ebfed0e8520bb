"""A module in training: its float32 parameters, the copy it computes with, its optimizer.

Parameters are ordinary ones under Hugging Face's names. Where the machine computes in bf16, a compute copy is cast
once a step, gives its gradients to the parameters in float32, and is what the engine samples from; under FSDP2 the
mixed precision of the sharding replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fledge.model.adapters import adapters, merge, skeleton, without_adapters
from fledge.model.attention import PackedAttention
from fledge.model.decoder import Decoder
from fledge.model.dropout import Dropout
from fledge.model.rotary import Rotary
from fledge.train.batch import PackedBatch
from fledge.train.mesh import Mesh, shard
from fledge.train.objective import Objective, Outputs
from fledge.train.optimizer import OptimizerConfig, make_optimizers, set_rate
from fledge.train.schedule import factor


class Trainee:
    def __init__(
        self, decoder: Decoder, optimizer: OptimizerConfig, dtype: torch.dtype = torch.float32,
        mesh: Mesh | None = None, recompute: bool = False, frozen: int = 0,
    ) -> None:  # fmt: skip
        """Takes the decoder over, with adapters or without. ``dtype`` is what products are computed in; ``recompute``
        makes the activations of a block again in the backward pass instead of keeping them. In its first ``frozen``
        steps it is not trained: no pass is made for it, and its schedule begins behind them."""
        self.mesh = mesh or Mesh()
        self.config = optimizer
        self.dtype = dtype
        self.frozen = frozen
        self.decoder = decoder.float().to(self.mesh.device)
        self.rotary = Rotary(decoder.config.head_dim, decoder.config.rope_theta)
        self.copy: Decoder | None = None
        self.dropout: Dropout | None = None  # in `loss` alone
        # of float32 gradients, between steps too: given back, it would be cut up, and another needed beside it
        self._room: dict[nn.Parameter, Tensor] = {}
        if self.mesh.sharded:
            shard(self.decoder, self.mesh, dtype)
        elif dtype != torch.float32:
            self.copy = skeleton(decoder)  # no second set of float32 weights, not even for a moment
            rooms = {name: p.detach().to(dtype) for name, p in self.decoder.named_parameters()}
            self.copy.load_state_dict(rooms, assign=True)
            for parameter, other in zip(self.decoder.parameters(), self.copy.parameters(), strict=True):
                other.requires_grad_(parameter.requires_grad)
        self.compute.model.recompute = recompute
        self.optimizers = make_optimizers(self.decoder, optimizer, self.mesh.sharded)
        self.refresh()

    @property
    def compute(self) -> Decoder:
        """What forward passes run on."""
        return self.copy if self.copy is not None else self.decoder

    @torch.no_grad()
    def refresh(self) -> None:
        """Cast the parameters that are trained into the compute copy. Once a step."""
        if self.copy is not None:
            pairs = zip(self.copy.parameters(), self.decoder.parameters(), strict=True)
            trained = [(other, parameter) for other, parameter in pairs if parameter.requires_grad]
            torch._foreach_copy_([other for other, _ in trained], [parameter for _, parameter in trained])

    def loss(
        self, batch: PackedBatch, objective: Objective, denominators: Mapping[str, float], name: str = "policy"
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, tuple[Tensor | float, float]]]:
        """The micro-batch's share of the loss (a scalar with gradient), its parts, and its metrics."""
        parts: dict[str, Tensor] = {}
        metrics: dict[str, tuple[Tensor | float, float]] = {}

        def head(hidden: Tensor, weight: Tensor | None, score: Tensor | None = None) -> Tensor:
            terms = objective.terms(batch, Outputs(hidden, weight, batch, score), name)
            metrics.update(terms.metrics)
            # where nothing is trained on, a zero that keeps the graph whole: other ranks wait for its backward
            total = hidden.sum() * 0.0 if len(batch.trained) == 0 else hidden.new_zeros((), dtype=torch.float32)
            for key, value in terms.sums.items():
                share = value / denominators[key]
                parts[key] = share.detach()
                total = total + share
            return total

        attend = PackedAttention(batch.plan, self.rotary, self.dtype)
        drop = self.dropout(batch.identity) if self.dropout is not None else None
        total = self.compute(batch.tokens, attend, head, drop)
        # FSDP2 averages over the ranks; ours is a sum over the global batch
        return (total * self.mesh.world if self.mesh.sharded else total), parts, metrics

    @torch.no_grad()
    def collect(self) -> None:
        """Add the compute copy's gradients to the parameters', in float32. After each backward."""
        if self.copy is None:
            return
        for parameter, other in zip(self.decoder.parameters(), self.copy.parameters(), strict=True):
            if other.grad is None:
                continue
            if parameter.grad is None:
                if parameter not in self._room:
                    self._room[parameter] = torch.empty_like(parameter)
                parameter.grad = self._room[parameter].copy_(other.grad)
            else:
                parameter.grad += other.grad
            other.grad = None

    def trains(self, step: int) -> bool:
        return step >= self.frozen

    def step(self, step: int, steps: int) -> dict[str, float]:
        """Clip, set the rate, update, refresh, at ``step`` of the loop's ``steps``. Returns the rate and the gradient's
        norm before clipping.

        A gradient of zero moves nothing, at rate 0: a rollout of which no answer could be kept is such a batch, and
        moments and weight decay wait for the next one. The gradient is asked, and not how many tokens are trained on:
        a reward model is read at the ends of answers, of which no token is.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), self.config.clip)
        if hasattr(norm, "full_tensor"):
            norm = norm.full_tensor()
        if norm == 0:
            self._forget()
            return {"lr": 0.0, "grad_norm": 0.0}
        rate = self.config.lr * factor(self.config.schedule, step - self.frozen, steps - self.frozen)
        set_rate(self.optimizers, rate)
        for optimizer in self.optimizers:
            optimizer.step()
        self._forget()
        self.refresh()
        return {"lr": rate, "grad_norm": float(norm)}

    def _forget(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def read(self, batch: PackedBatch, what: Callable[[Outputs], Tensor]) -> Tensor:
        """``what`` of the outputs with the current weights, no gradient."""

        def head(hidden: Tensor, weight: Tensor | None, score: Tensor | None = None) -> Tensor:
            return what(Outputs(hidden, weight, batch, score))

        result: Tensor = self.compute(batch.tokens, PackedAttention(batch.plan, self.rotary, self.dtype), head)
        return result

    def logp(self, batch: PackedBatch, temperature: float = 1.0) -> Tensor:
        """Log-probability of each trained token (M,), no gradient."""
        return self.read(batch, lambda outputs: outputs.logp(temperature))

    def inference_decoder(self) -> Decoder:
        """A whole decoder with the current weights, for the engine: the compute copy itself, or the gathered shards;
        with adapters a plain one that has them in its weights."""
        whole = self._whole_compute()
        return merge(whole) if adapters(whole) else whole

    def base_decoder(self) -> Decoder:
        """What the adapters were put on, which never changes: the reference of a policy that began there. It shares
        the weights of the compute copy."""
        return without_adapters(self._whole_compute())

    def whole_decoder(self) -> Decoder:
        """In float32, with its adapters: the decoder itself, or the gathered shards (a collective call)."""
        if not self.mesh.sharded:
            return self.decoder
        whole = skeleton(self.decoder)
        whole.load_state_dict(self.full_state(), assign=True)
        whole.folder = self.decoder.folder
        return whole

    def _whole_compute(self) -> Decoder:
        return self.whole_decoder().to(self.dtype) if self.mesh.sharded else self.compute

    def full_state(self) -> dict[str, Tensor]:
        """Whole float32 parameters under their Hugging Face names (a collective call where sharded)."""
        state = {}
        for name, parameter in self.decoder.named_parameters():
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            state[name] = whole.detach()
        return state
