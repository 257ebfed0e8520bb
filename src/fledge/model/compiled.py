"""What of the model is computed by compiled loops, in this process: one switch for passes, attention and head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fledge.model.head_loops import HeadLoops, use_head_loops
from fledge.model.passes import OnePass, compile_passes
from fledge.model.tiles import Tiles, use_tiles

WORTH_COMPILING = 200_000_000  # steps x parameters: 40 steps of 5M parameters take about as long as compiling


def worth_compiling(choice: str, work: int) -> bool:
    """Whether a run of ``work`` steps x parameters is to be compiled under ``compile: auto | on | off``."""
    return choice == "on" or (choice == "auto" and work >= WORTH_COMPILING)


def compile_model(on: bool, dtype: torch.dtype | None = None) -> str:
    """The passes between products (passes.py), attention over tiles (tiles.py) and the head (head_loops.py), from now
    on, for a model that is computed in ``dtype``. -> why nothing is compiled, where it was to be. Attention and head
    have their other paths where the processor lacks what their loops need, in this type or at all."""
    why = compile_passes(on)
    use_tiles(on and not why, dtype)
    use_head_loops(on and not why, dtype)
    return why


@contextmanager
def loops(on: bool, dtype: torch.dtype) -> Iterator[None]:
    """Attention and head as `compile_model` would have them, and as they were afterwards. Takes no time once they are
    built; passes take some in every process."""
    before = Tiles.on, HeadLoops.on
    use_tiles(on, dtype)
    use_head_loops(on, dtype)
    try:
        yield
    finally:
        Tiles.on, HeadLoops.on = before


def compiled() -> list[str]:
    """What is: of "passes", "attention" and "head"."""
    every = (("passes", OnePass.compiled), ("attention", Tiles.on), ("head", HeadLoops.on))
    return [name for name, on in every if on]
