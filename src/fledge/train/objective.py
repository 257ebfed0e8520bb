"""The contract between the loop and what a stage optimises, and the objectives that are plain likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fledge.model.head import token_logp, weighted_nll
from fledge.train.batch import Example, PackedBatch


@dataclass
class Terms:
    """``sums``: each is divided by the denominator of the same name. ``metrics``: (sum, count), for the log."""

    sums: dict[str, Tensor]
    metrics: dict[str, tuple[Tensor | float, float]] = field(default_factory=dict)


class Outputs:
    """What a module says about a micro-batch: computed when asked for, and only for the trained tokens."""

    def __init__(self, hidden: Tensor, weight: Tensor | None, batch: PackedBatch, score: Tensor | None = None) -> None:
        """hidden (N, h) of the packed row; weight (V, h) of the head, score (1, h) of the scalar head: what is not
        there is not asked for."""
        self.hidden, self.batch, self._weight, self._score = hidden, batch, weight, score
        self.states = hidden.index_select(0, batch.source)  # (M, h)
        # several terms may ask for the same; None where entropy was not asked for
        self._known: dict[float, tuple[Tensor, Tensor | None]] = {}

    @property
    def weight(self) -> Tensor:
        if self._weight is None:
            raise ValueError("this module has no head over the vocabulary: it gives no log-probabilities")
        return self._weight

    def scalars(self) -> Tensor:
        """What the scalar head says of the state before each trained token, (M,) float32: a value model's V_t."""
        return self._read(self.states)

    def end_scalars(self) -> Tensor:
        """What it says at the last token of each segment, (S,) float32: a reward model's r, read at the end token."""
        return self._read(self.hidden.index_select(0, self.batch.last))

    def _read(self, states: Tensor) -> Tensor:
        if self._score is None:
            raise ValueError("this module has no scalar head: it gives no values or rewards")
        return (states.float() @ self._score.float().T)[:, 0]

    def logp(self, temperature: float = 1.0) -> Tensor:
        """Log-probability of each trained token, (M,)."""
        if temperature not in self._known:
            targets = self.batch.targets
            logp, _ = token_logp(self.states, self.weight, targets, temperature, with_entropy=False)
            self._known[temperature] = logp, None
        return self._known[temperature][0]

    def logp_and_entropy(self, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Beside it the entropy of the distribution that each token was drawn from: another pass over all logits."""
        logp, entropy = self._known.get(temperature, (None, None))
        if logp is None or entropy is None:
            logp, entropy = token_logp(self.states, self.weight, self.batch.targets, temperature)
            self._known[temperature] = logp, entropy
        return logp, entropy

    def weighted_nll(self, token_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of -logp·weight, with its gradient made on the way where the vocabulary is small, and logp (M,) without.
        """
        if not torch.is_grad_enabled():
            logp = self.logp()
            return -(logp * token_weight).sum(), logp
        return weighted_nll(self.states, self.weight, self.batch.targets, token_weight)


class Objective(Protocol):
    """Sums over tokens or segments, over denominators that are known before the first backward (promise 3)."""

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        """From the whole global batch, of all ranks."""
        ...

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        """The sums for one module over one micro-batch."""
        ...


class Likelihood:
    """Mean negative log-likelihood of the trained tokens: pretraining and SFT (SPEC H.2)."""

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        return {"nll": float(sum(segment.weight.sum() for e in examples for segment in e.segments))}

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        total, _ = outputs.weighted_nll(batch.weight)
        return Terms({"nll": total})
