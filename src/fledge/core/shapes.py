"""Sizes of products, rounded so that few different ones occur.

On CPUs torch hands bf16 products to oneDNN, which compiles code for each new shape and keeps it. Packed batches have a
new number of tokens every time. Measured on 2 cores with AMX: a product of 2,000-odd rows takes 0.3-1.5 ms once its
code is there and 7-32 ms the first time, so that most of a training step was compiling. Products in float32 and on
GPUs have no such cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fledge.core.machine import bf16_instructions


def round_up(count: int, device: Any = "cpu") -> int:
    """``count`` or a little more (a sixteenth at most): sixteen sizes from each power of two to the next.

    ``count`` itself where shapes cost nothing: on other devices, and on CPUs that do not compute in bf16.
    """
    if count <= 32 or not str(device).startswith("cpu") or not bf16_instructions():
        return count
    step = 1 << (count.bit_length() - 5)
    return -(-count // step) * step


def filled(tokens: npt.NDArray[np.int64], device: Any = "cpu") -> npt.NDArray[np.int64]:
    """(N,) -> (round_up(N),): token 0 in the rows beyond, which no attention plan lets anything see."""
    return np.pad(tokens, (0, round_up(len(tokens), device) - len(tokens)))
