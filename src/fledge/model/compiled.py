"""What of the model is computed by compiled loops, in this process: one switch for passes and attention."""

from __future__ import annotations

from fledge.model.passes import OnePass, compile_passes
from fledge.model.tiles import Tiles, use_tiles


def compile_model(on: bool) -> str:
    """The passes between products (passes.py), and attention over tiles (tiles.py), from now on. -> why nothing is
    compiled, where it was to be. Attention has its other paths where the processor lacks what its loops need."""
    why = compile_passes(on)
    use_tiles(on and not why)
    return why


def compiled() -> list[str]:
    """What is: of "passes" and "attention"."""
    return [name for name, on in (("passes", OnePass.compiled), ("attention", Tiles.on)) if on]
