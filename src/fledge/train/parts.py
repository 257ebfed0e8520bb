"""The time of a step, divided into parts: timed phases, and profiled operations fitted into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fledge.train.trace import CASTS, LOOP, MODEL, OPTIMIZER, PARTS, REST, SOURCE, Account

_PHASE_OF = {SOURCE: "source", OPTIMIZER: "optimizer", LOOP: "step"}


@dataclass
class Part:
    """Of a step. ``gflop``: of matrix products. ``gbyte``, where there are none: about what is read and written, in
    ``known_seconds`` of the part's time."""

    name: str
    seconds: float
    forward: float = 0.0
    backward: float = 0.0
    gflop: float = 0.0
    gbyte: float = 0.0
    known_seconds: float = 0.0

    @property
    def gflops(self) -> float:
        """GFLOP/s of the whole part, what lies between its products included; 0 where there are none."""
        return self.gflop / self.seconds if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """GB/s; 0 where no bytes are known."""
        return self.gbyte / self.known_seconds if self.known_seconds else 0.0


def divide(
    account: Account, steps: int, wall: Mapping[str, float], under: Mapping[str, float], cuda: bool, updated: float
) -> list[Part]:
    """The parts of a step that takes ``wall`` (seconds by phase), or ``under`` the profiler, whose account is of
    ``steps``. They add up to the sum of ``wall``. ``updated``: bytes that the optimizer moves; 0 where not known."""
    parts = _by_kernels(account, 1 / steps, wall) if cuda else _by_phases(account, 1 / steps, wall, under)
    for part in parts:
        every = account.of_part(part.name)
        if part.name in (SOURCE, REST, LOOP):
            continue
        part.gflop = every.flops / steps / 1e9
        if part.name == OPTIMIZER and updated:
            part.gbyte, part.known_seconds = updated / 1e9, part.seconds
        elif not part.gflop:
            part.gbyte, part.known_seconds = every.bytes / steps / 1e9, every.counted / steps
    return parts


def _by_phases(account: Account, each: float, wall: Mapping[str, float], under: Mapping[str, float]) -> list[Part]:
    """On a processor: a phase takes what it was timed to take; operations divide those of the model."""
    factors, rest = [], []
    for phases in (MODEL[:2], MODEL[2:]):
        timed, slow = (sum(seconds[phase] for phase in phases) for seconds in (wall, under))
        factor, left = _fit(timed, slow, account.of_phases(phases) * each)
        factors.append(factor)
        rest.append(left)
    parts = []
    for name in PARTS:
        if name in _PHASE_OF:
            parts.append(Part(name, wall[_PHASE_OF[name]]))
        elif name == REST:
            parts.append(Part(name, sum(rest), *rest))
        else:
            forward, backward = (
                account.of_part(name, phases).seconds * each * factor
                for phases, factor in zip((MODEL[:2], MODEL[2:]), factors, strict=True)
            )
            between = wall["gradients"] + wall["casts"] if name == CASTS else 0.0
            parts.append(Part(name, forward + backward + between, forward, backward))
    return parts


def _fit(timed: float, under: float, work: float) -> tuple[float, float]:
    """Seconds of passes without and under the profiler, and of operations in the latter -> what the operations' seconds
    are to be multiplied with, and what is left of ``timed`` for Python and dispatch."""
    if timed > under:  # something else took the time: no reason to call it Python's
        return timed / under, max(0.0, under - work) * timed / under
    return min(1.0, timed / work) if work else 1.0, max(0.0, timed - work)


def _by_kernels(account: Account, each: float, wall: Mapping[str, float]) -> list[Part]:
    """On a GPU, which works behind the host: a part takes what its kernels take; the source, at whose end the device
    is waited for, what it was timed to take; the rest is time in which the device had nothing to do."""
    left = sum(wall.values()) - wall["source"]
    busy = sum(account.of_part(name).seconds for name in PARTS if name not in (SOURCE, REST)) * each
    factor = min(1.0, left / busy) if busy else 1.0
    parts = []
    for name in PARTS:
        if name == SOURCE:
            parts.append(Part(name, wall["source"]))
        elif name == REST:
            parts.append(Part(name, max(0.0, left - busy * factor)))
        else:
            seconds, forward, backward = (
                account.of_part(name, phases).seconds * each * factor for phases in ((), MODEL[:2], MODEL[2:])
            )
            parts.append(Part(name, seconds, forward, backward))
    return parts
