"""What models say of fixed examples: a frozen one (references), or one in training (old policies, values)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fledge.model.attention import PackedAttention
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary
from fledge.train.batch import Example, PackedBatch, cut, pack, shares
from fledge.train.mesh import Mesh, sum_over_ranks
from fledge.train.objective import Outputs

Progress = Callable[[float], None]


def reference_logp(
    examples: Sequence[Example], decoder: Decoder, dtype: torch.dtype, micro_tokens: int, device: str = "cpu",
    on_progress: Progress | None = None, temperature: float = 1.0,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Log-probability of every trained token, in the order of the examples. The decoder itself is left as it is."""
    return _read(examples, decoder, dtype, micro_tokens, device, on_progress, lambda outputs: outputs.logp(temperature))


def end_scalars(
    examples: Sequence[Example], decoder: Decoder, dtype: torch.dtype, micro_tokens: int, device: str = "cpu",
    on_progress: Progress | None = None,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """The scalar at the last token of every segment (prompts too), in the order of the examples."""
    return _read(examples, decoder, dtype, micro_tokens, device, on_progress, Outputs.end_scalars)


@torch.no_grad()
def _read(
    examples: Sequence[Example], decoder: Decoder, dtype: torch.dtype, micro_tokens: int, device: str,
    on_progress: Progress | None, what: Callable[[Outputs], Tensor],
) -> npt.NDArray[np.float32]:  # fmt: skip
    frozen = decoder
    if next(decoder.parameters()).dtype != dtype:
        frozen = decoder.twin().to(dtype)
        frozen.load_state_dict(decoder.state_dict())
    frozen = frozen.to(device)
    rotary = Rotary(decoder.config.head_dim, decoder.config.rope_theta)
    values = [np.empty(0, np.float32)]
    for part in cut(examples, micro_tokens):
        batch = pack(part, device)

        def head(
            hidden: Tensor, weight: Tensor | None, score: Tensor | None = None, batch: PackedBatch = batch
        ) -> Tensor:
            return what(Outputs(hidden, weight, batch, score))

        read = frozen(batch.tokens, PackedAttention(batch.plan, rotary, dtype), head)
        values.append(read.float().cpu().numpy())
        if on_progress is not None:
            on_progress(len(part))
    return np.concatenate(values)


def token_values(
    examples: Sequence[Example], read: Callable[[PackedBatch], Tensor], micro_tokens: int, mesh: Mesh
) -> npt.NDArray[np.float32]:
    """What ``read`` (a micro-batch -> (M,), such as `Trainee.logp`) says of every trained token, in the order of the
    examples. Each rank reads its share, and all have the whole: a sum of one value and zeros."""
    values = [np.empty(0, np.float32)]
    for part in shares(examples, mesh.rank, mesh.world, micro_tokens):
        values.append(read(pack(part, mesh.device)).detach().float().cpu().numpy())
    trained = np.array([example.trained for example in examples])
    mine = np.repeat(np.arange(len(examples)) % mesh.world == mesh.rank, trained)
    flat = np.zeros(int(trained.sum()))
    flat[mine] = np.concatenate(values)
    return np.array(sum_over_ranks(flat.tolist(), mesh), np.float32)
