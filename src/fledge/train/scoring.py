"""Log-probabilities of fixed examples under a frozen model, for references and old policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from fledge.model.attention import PackedAttention
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary
from fledge.train.batch import Example, cut, pack
from fledge.train.objective import Outputs


@torch.no_grad()
def reference_logp(
    examples: Sequence[Example], decoder: Decoder, dtype: torch.dtype, micro_tokens: int, device: str = "cpu",
    on_progress: Callable[[float], None] | None = None, temperature: float = 1.0,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Log-probability of every trained token, in the order of the examples. The decoder itself is left as it is."""
    frozen = decoder
    if next(decoder.parameters()).dtype != dtype:
        frozen = Decoder(decoder.config).to(dtype)
        frozen.load_state_dict(decoder.state_dict())
    frozen = frozen.to(device)
    rotary = Rotary(decoder.config.head_dim, decoder.config.rope_theta)
    values = [np.empty(0, np.float32)]
    for part in cut(examples, micro_tokens):
        batch = pack(part, device)
        hidden = frozen(batch.tokens, PackedAttention(batch.plan, rotary, dtype))
        logp = Outputs(hidden, frozen.output_weight, batch).logp(temperature)
        values.append(logp.float().cpu().numpy())
        if on_progress is not None:
            on_progress(len(part))
    return np.concatenate(values)
