"""Where the time and the memory of a training step go, against what the machine can do.

A few steps are taken to warm up, some are timed, and one or two run under torch's profiler. The timed ones say how long
each phase takes; the profiled ones how the passes through the model divide among operations. What a phase takes beyond
its operations is Python and dispatch: the profiler slows that down, so it is not read from the trace (but where a step
is slower without the profiler than with it, which only another program can cause: then everything is in proportion).

Batches differ in size, and the first product of a new size may be slow (core/shapes.py). So a batch that is timed is
trained on twice, of which the second counts, and the batch of the median is the one that is profiled.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from fledge.core.machine import Machine, copy_rate, machine, product_rate
from fledge.train.loop import GlobalBatch, Loop
from fledge.train.parts import Part, divide
from fledge.train.trace import MODEL, Account, Amount, read_account
from fledge.train.watch import Load, Watch, WatchedObjective, WatchedSource, WatchedTrainee, module_spans

LONG = 2.0  # seconds of a step beyond which only one is profiled: a trace of many operations takes long to read
LONG_PRODUCT = 2.0  # seconds of one product beyond which it is not measured
ADAMW_BYTES = 40  # a parameter: four tensors read and three written, and for clipping two read and one written
DISTURBED = 1.1  # a step so much slower without the profiler than under it was not alone on the machine


@dataclass
class Operation:
    name: str
    part: str
    calls: float  # a step
    seconds: float  # a step
    gflops: float
    gbytes: float


@dataclass
class Profile:
    """Everything a step. ``steps``: seconds of every timed one; the parts are those of the median. A stage that makes
    several updates of one batch of rollouts has that many steps in a ``cycle``, and all figures are means over it."""

    dtype: str
    device: str
    parameters: int
    cycle: int
    steps: list[float]
    seconds: float
    first_time: float  # seconds that a batch of the median's size took more when it was trained on for the first time
    micro_batches: float
    tokens: float
    trained: float
    sampled: float
    gflop: float  # that forward and backward need: of sampling and references nothing
    product_ceiling: float  # GFLOP/s
    copy_ceiling: float  # GB/s
    parts: list[Part]
    operations: list[Operation]
    sampling: dict[str, float]  # seconds in operations of the source, by part, in a profiled step
    memory: dict[str, int]  # bytes
    peaks: dict[str, int]  # bytes: by phase, the most that a step held beyond what stays from step to step
    peak_phase: str
    profiled_seconds: float  # of a step under the profiler
    disturbed: bool  # forward and backward were slower without the profiler than with it

    @property
    def gflops(self) -> float:
        return self.gflop / self.seconds

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def plain(self) -> dict[str, Any]:
        """As JSON, with the rates."""
        rates = [{"gflops": p.gflops, "gbytes": p.gbytes} for p in self.parts]
        parts = [{**asdict(p), **rate} for p, rate in zip(self.parts, rates, strict=True)]
        return {**asdict(self), "gflops": self.gflops, "parts": parts}


@dataclass
class _Taken:
    """A cycle of steps: sums over them, and their batches."""

    seconds: dict[str, float] = field(default_factory=dict)
    load: Load = field(default_factory=Load)
    batches: list[GlobalBatch] = field(default_factory=list)
    first_time: float = 0.0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class _Taker:
    """Takes cycles of steps of a watched loop, one after the other."""

    def __init__(self, loop: Loop, watch: Watch, cycle: int) -> None:
        assert isinstance(loop.source, WatchedSource)
        self.loop, self.watch, self.cycle, self.source = loop, watch, cycle, loop.source
        self.first = max(trainee.frozen for trainee in loop.trainees.values())  # from here on all modules train
        self.at = 0

    def take(self, batches: Sequence[GlobalBatch] = (), rest: bool = False) -> _Taken:
        """``batches``: what is trained on instead of what the source gives; ``rest``: the source does not work."""
        taken = _Taken()
        self.source.replay, self.source.rest = list(batches), rest
        for _ in range(self.cycle):
            with self.watch.step():
                self.loop.step(self.first + self.at % (self.loop.steps - self.first))
            self.at += 1
            assert self.source.last is not None
            taken.batches.append(self.source.last)
            for name, value in self.watch.seconds.items():
                taken.seconds[name] = taken.seconds.get(name, 0.0) + value
            for key, value in asdict(self.watch.load).items():
                setattr(taken.load, key, getattr(taken.load, key) + value)
        return taken

    def take_twice(self) -> _Taken:
        """The second time's seconds, with those of the source, which works the first time only."""
        first = self.take()
        second = self.take(first.batches, rest=True)
        second.first_time = first.total - first.seconds["source"] - second.total
        second.seconds["source"] = first.seconds["source"]
        return second


def watched(loop: Loop, watch: Watch) -> Loop:
    """The loop with its source and objective watched; its trainees are made by `watch.watched_trainee`."""
    loop.source = WatchedSource(watch, loop.source)
    loop.objective = WatchedObjective(watch, loop.objective)
    return loop


def take_profile(
    loop: Loop, watch: Watch, warm_up: int = 2, steps: int = 5, cycle: int = 1, trace: Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Profile:  # fmt: skip
    """Take ``warm_up``, ``steps`` and one or two profiled cycles of a `watched` loop, from the first step on in which
    all its modules train.
    ``trace``: where Chrome's form of the profiled steps is written."""
    policy = loop.trainees["policy"]
    assert isinstance(policy, WatchedTrainee)
    taker = _Taker(loop, watch, cycle)
    say(f"warming up: {warm_up * cycle} steps")
    for _ in range(warm_up):
        taker.take()
    say(f"timing {steps * cycle} steps, each of them twice")
    timed = [taker.take_twice() for _ in range(steps)]
    typical = sorted(timed, key=lambda t: t.total)[(len(timed) - 1) // 2]
    process = _process_peak()
    count = 1 if typical.total > LONG else 2
    say(f"profiling {count * cycle} more")
    account, slow = _profile(lambda: taker.take(typical.batches), policy, watch, count, trace)
    under, without = (sum(t.seconds[phase] for phase in MODEL) for t in (slow, typical))
    say("measuring the machine")
    facts = machine()
    dtype = str(policy.dtype).removeprefix("torch.")
    ceiling = _product_ceiling(dtype, facts)
    modules = [trainee for trainee in loop.trainees.values() if isinstance(trainee, WatchedTrainee)]
    memory, peak_phase = _memory(modules, watch, account, process)
    each = 1 / cycle
    return Profile(
        dtype=dtype, device=facts.cuda or facts.cpu, parameters=policy.decoder.config.parameters, cycle=cycle,
        steps=[t.total * each for t in timed], seconds=typical.total * each, first_time=typical.first_time * each,
        micro_batches=typical.load.micro_batches * each, tokens=typical.load.tokens * each,
        trained=typical.load.trained * each, sampled=typical.load.sampled * each,
        gflop=typical.load.flops(policy.decoder.config) / 1e9 * each,
        product_ceiling=ceiling, copy_ceiling=copy_rate(device=facts.device),
        parts=divide(
            account, count * cycle, _each(typical, cycle), _each(slow, cycle), bool(facts.cuda),
            sum(map(_updated, modules)),
        ),
        operations=_operations(account, count * cycle),
        sampling={part: amount.seconds / (count * cycle) for part, amount in account.sampling.items()}, memory=memory,
        peaks={phase: held for phase, (held, _) in account.peaks.items()}, peak_phase=peak_phase,
        profiled_seconds=slow.total * each, disturbed=without > DISTURBED * under,
    )  # fmt: skip


def _profile(
    take: Callable[[], _Taken], policy: WatchedTrainee, watch: Watch, count: int, trace: Path | None
) -> tuple[Account, _Taken]:
    """-> the account of ``count`` cycles, and one of them: the mean of their seconds."""
    cuda = watch.device.startswith("cuda")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    watch.mark, watch.gradients = True, []
    with ExitStack() as stack:
        stack.enter_context(module_spans(policy.compute))
        recorded = stack.enter_context(torch_profile(activities=activities, record_shapes=True, profile_memory=True))
        taken = [take() for _ in range(count)]
    watch.mark = False
    if trace is not None:
        recorded.export_chrome_trace(str(trace))
    assert recorded.profiler is not None
    mean = {phase: sum(t.seconds[phase] for t in taken) / count for phase in taken[0].seconds}
    return read_account(recorded.profiler.kineto_results, cuda), _Taken(mean, taken[0].load)


def _each(taken: _Taken, cycle: int) -> dict[str, float]:
    return {phase: seconds / cycle for phase, seconds in taken.seconds.items()}


def _updated(module: WatchedTrainee) -> float:
    """Bytes that an update moves, where that is known."""
    return ADAMW_BYTES * module.decoder.config.parameters if module.config.name == "adamw" else 0.0


def _operations(account: Account, steps: int) -> list[Operation]:
    """Every operation in each part, the longest first."""
    sums: dict[tuple[str, str], Amount] = {}
    for (part, _, name), amount in account.operations.items():
        sums.setdefault((name, part), Amount()).add(amount)
    found = []
    for (name, part), amount in sums.items():
        known = amount.counted or 1.0
        rates = (amount.flops / known / 1e9, 0.0 if amount.flops else amount.bytes / known / 1e9)
        found.append(Operation(name, part, amount.calls / steps, amount.seconds / steps, *rates))
    return sorted(found, key=lambda o: -o.seconds)


def _memory(
    modules: Sequence[WatchedTrainee], watch: Watch, account: Account, process: int
) -> tuple[dict[str, int], str]:
    """Bytes of tensors at the peak of a step, and the phase in which it is. What is there from step to step is counted;
    gradients as they were when that phase began; the rest of the peak is activations and what operations need."""
    phase, (peak, number) = max(account.peaks.items(), key=lambda item: item[1][0], default=("", (0, 0)))
    gradients = watch.gradients[number] if number < len(watch.gradients) else 0
    every = [module.memory() for module in modules]
    held = {kind: sum(memory[kind] for memory in every) for kind in every[0]}
    memory = {
        **held,
        "gradients": gradients,
        "activations and temporaries": max(0, peak - gradients),
        "peak of tensors": sum(held.values()) + peak,
        "process at its peak": process,
    }
    return memory, phase


def _product_ceiling(dtype: str, facts: Machine) -> float:
    """GFLOP/s of the machine's products. The large one is left out where it would take many seconds: bf16 without
    instructions for it is a hundred times slower than float32."""
    if facts.cuda:
        return product_rate(dtype, 8192, device=facts.device)
    rate = product_rate(dtype, 1024, device=facts.device)
    seconds = 2 * 2048**3 / 1e9 / rate
    return max(rate, product_rate(dtype, 2048, device=facts.device)) if seconds < LONG_PRODUCT else rate


def _process_peak() -> int:
    """Resident memory of this process at its highest, in bytes: tensors, data, Python, torch itself."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
