"""What of the model is computed by compiled loops, in this process: one switch for passes and attention."""

from __future__ import annotations

import torch

from fledge.model.passes import OnePass, compile_passes
from fledge.model.tiles import Tiles, use_tiles

WORTH_COMPILING = 200_000_000  # steps x parameters: 40 steps of 5M parameters take about as long as compiling


def worth_compiling(choice: str, work: int) -> bool:
    """Whether a run of ``work`` steps x parameters is to be compiled under ``compile: auto | on | off``."""
    return choice == "on" or (choice == "auto" and work >= WORTH_COMPILING)


def compile_model(on: bool, dtype: torch.dtype | None = None) -> str:
    """The passes between products (passes.py), and attention over tiles (tiles.py), from now on, for a model that is
    computed in ``dtype``. -> why nothing is compiled, where it was to be. Attention has its other paths where the
    processor lacks what its loops need, in this type or at all."""
    why = compile_passes(on)
    use_tiles(on and not why, dtype)
    return why


def compiled() -> list[str]:
    """What is: of "passes" and "attention"."""
    return [name for name, on in (("passes", OnePass.compiled), ("attention", Tiles.on)) if on]
