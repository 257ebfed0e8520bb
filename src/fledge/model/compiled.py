"""What of the model is computed by compiled loops, in this process: one switch for passes, attention and head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fledge.model import pass_loops
from fledge.model.head_loops import HeadLoops, use_head_loops
from fledge.model.passes import OnePass, compile_passes
from fledge.model.tiles import Tiles, use_tiles

# Steps x parameters, as 30 steps of 6.5M: 14 s of 2 cores (benchmarks/pretrain.py), where the first build of the loops
# for training is 8 s of one (benchmarks/first_build.py).
WORTH_COMPILING = 200_000_000


def worth_compiling(choice: str, work: int) -> bool:
    """Whether a run of ``work`` steps x parameters is to be compiled under ``compile: auto | on | off``."""
    return choice == "on" or (choice == "auto" and work >= WORTH_COMPILING)


def compile_model(on: bool, dtype: torch.dtype | None = None) -> str:
    """The passes between products (passes.py), attention over tiles (tiles.py) and the head (head_loops.py), from now
    on, for a model that is computed in ``dtype``. -> why nothing is compiled, where it was to be. Where the processor
    lacks what loops of our own need, in this type or at all, torch's compiler makes those of the passes, and attention
    and head have their other paths."""
    why = compile_passes(on)
    use_tiles(on and not why, dtype)
    use_head_loops(on and not why, dtype)
    return why


def by_torch() -> bool:
    """Whether torch's compiler is needed for the passes here: there are no loops of our own for this processor."""
    return bool(pass_loops.missing())


@contextmanager
def loops(on: bool, dtype: torch.dtype) -> Iterator[None]:
    """The loops of our own as `compile_model` would have them, and as they were afterwards. Takes no time once they are
    built; what torch's compiler would have to make is left as it is."""
    before = OnePass.compiled, Tiles.on, HeadLoops.on
    OnePass.compiled = on and not by_torch()
    use_tiles(on, dtype)
    use_head_loops(on, dtype)
    try:
        yield
    finally:
        OnePass.compiled, Tiles.on, HeadLoops.on = before


def compiled() -> list[str]:
    """What is: of "passes", "attention" and "head"."""
    every = (("passes", OnePass.compiled), ("attention", Tiles.on), ("head", HeadLoops.on))
    return [name for name, on in every if on]
