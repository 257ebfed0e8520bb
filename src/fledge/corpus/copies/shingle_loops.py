"""The loops of shingle_loops.cpp, where there is a compiler; numpy does the same where there is none."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import numpy as np

from fledge.core.errors import ConfigError
from fledge.core.native import load_loops

_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_int64
_FUNCTIONS = {
    "fledge_tokens": (_ADDRESS, _ADDRESS, _COUNT, _ADDRESS, _ADDRESS, _ADDRESS),
    "fledge_minhash": (_ADDRESS, _ADDRESS, _COUNT, _ADDRESS, _ADDRESS, _COUNT, _ADDRESS),
}
_NUMBERS = {"fledge_common": (_ADDRESS, _COUNT, _ADDRESS, _COUNT)}


@functools.cache
def loops() -> ctypes.CDLL | None:
    """None where they cannot be built here: all results are the same without them, later."""
    try:
        return load_loops(Path(__file__).with_name("shingle_loops.cpp"), _FUNCTIONS, _NUMBERS)
    except ConfigError:
        return None


def address(array: np.ndarray) -> int:
    """Of an array without gaps, which the caller keeps alive during the call."""
    return array.ctypes.data
