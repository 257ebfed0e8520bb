"""From a profiler's trace to an account: which part of a step each operation belongs to, what it moved and computed.

An operation of a forward pass belongs to the spans that it lies in (`watch`); one of a backward pass to those of the
operation whose gradient it makes, which autograd's sequence numbers name. Time is an operation's own, without what it
calls: of the processor, or of the GPU's kernels that it started.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch.autograd import DeviceType

from fledge.train.watch import MODULE, SPAN

# The parts of a step, in the order in which they are shown.
SOURCE, LOOP = "source", "loop"
PROJECTIONS, ATTENTION, HEAD = "projections", "attention", "head and loss"
ELEMENTWISE, CASTS, OPTIMIZER = "elementwise", "casts and copies", "optimizer"
REST = "Python and dispatch"
PARTS = (SOURCE, PROJECTIONS, ATTENTION, HEAD, ELEMENTWISE, CASTS, OPTIMIZER, REST, LOOP)
_WHOLE = {"step": LOOP, "source": SOURCE, "gradients": CASTS, "casts": CASTS, "optimizer": OPTIMIZER}
MODEL = ("forward", "head", "backward")  # the phases that are told apart by operation

_NODE = "autograd::engine::evaluate_function: "
_REGIONS = ("Torch-Compiled Region", "## Call CompiledFxGraph")
_OURS = "fledge::"  # loops under a name of ours (`passes.named`)
_MATRICES = {"aten::mm": (0, 1), "aten::addmm": (1, 2), "aten::bmm": (0, 1), "aten::baddbmm": (1, 2)}
_BATCHED = ("aten::bmm", "aten::baddbmm")
_COPIES = ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::_foreach_copy_", "aten::to")
_REDUCTIONS = {
    "aten::sum", "aten::mean", "aten::amax", "aten::max", "aten::any", "aten::linalg_vector_norm",
    "aten::linalg_vecdot", "aten::logsumexp", "aten::_local_scalar_dense",
}  # fmt: skip
_SIZES = {
    "float": 4, "double": 8, "int": 4, "long int": 8, "long": 8, "bool": 1, "unsigned char": 1, "signed char": 1,
    "c10::BFloat16": 2, "c10::Half": 2,
}  # fmt: skip


@dataclass
class Amount:
    """Sums over operations. ``counted``: the seconds of those whose operations or bytes are known."""

    seconds: float = 0.0
    calls: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    counted: float = 0.0

    def add(self, other: Amount) -> None:
        self.seconds += other.seconds
        self.calls += other.calls
        self.flops += other.flops
        self.bytes += other.bytes
        self.counted += other.counted


@dataclass(frozen=True)
class Place:
    """Where an operation lies: phase of the step, innermost module, in the head or not, in a gradient's sum or not."""

    phase: str = ""
    module: str = ""
    head: bool = False
    accumulates: bool = False


@dataclass
class Node:
    """One event of the processor."""

    event: Any
    name: str
    start: int  # ns
    end: int
    place: Place = field(default_factory=Place)
    flops: float = 0.0  # that its name says
    inside: int = 0  # ns in the events that this one called
    called: bool = False  # whether there are any

    @property
    def is_operation(self) -> bool:
        own = "::" in self.name and not self.name.startswith(("autograd::engine", "torch::autograd"))
        return own or self.name.startswith(_REGIONS)


@dataclass
class Account:
    """``operations``: amounts by (part, phase, name of the operation). ``sampling``: those of the source by the part
    that they would be in a forward pass. ``peaks``: by phase, the most bytes that were allocated at once beyond what
    there was at the beginning, and the number of the phase (in order) in which."""

    operations: dict[tuple[str, str, str], Amount]
    sampling: dict[str, Amount]
    peaks: dict[str, tuple[int, int]]

    def of_part(self, part: str, phases: Sequence[str] = ()) -> Amount:
        total = Amount()
        for (owner, phase, _), amount in self.operations.items():
            if owner == part and (not phases or phase in phases):
                total.add(amount)
        return total

    def of_phases(self, phases: Sequence[str]) -> float:
        """Seconds in operations of these phases."""
        return sum(amount.seconds for (_, phase, _), amount in self.operations.items() if phase in phases)


def read_account(results: Any, cuda: bool) -> Account:
    """Of ``torch.profiler.profile(...).profiler.kineto_results``, recorded with shapes and memory."""
    events = results.events()
    nodes = _tree([e for e in events if e.device_type() == DeviceType.CPU and _kept(e)], whole=not cuda)
    kernels = _kernel_seconds(events) if cuda else {}
    operations: dict[tuple[str, str, str], Amount] = defaultdict(Amount)
    sampling: dict[str, Amount] = defaultdict(Amount)
    for node in nodes:
        if not node.is_operation or not node.place.phase:
            continue
        if cuda:
            seconds = kernels.get(node.event.correlation_id(), 0.0)
        else:
            seconds = (node.end - node.start - node.inside) / 1e9
        amount = _amount(node, seconds)
        operations[part_of(node.name, node.place), node.place.phase, node.name].add(amount)
        if node.place.phase == "source":
            sampling[part_of(node.name, replace(node.place, phase="forward"))].add(amount)
    return Account(dict(operations), dict(sampling), _peaks(events, nodes, cuda))


def part_of(name: str, place: Place) -> str:
    """The part of the step that an operation of this name at this place belongs to."""
    if place.phase in _WHOLE:
        return _WHOLE[place.phase]
    if place.head:
        return HEAD
    if place.accumulates:
        return CASTS
    if name in _BATCHED or "attention" in name:
        return ATTENTION
    if name in _MATRICES or "linear" in name:
        return PROJECTIONS
    if place.module == "SelfAttention" or "softmax" in name:
        return ATTENTION
    return CASTS if name in _COPIES else ELEMENTWISE


def _kept(event: Any) -> bool:
    """Of the processor's events those that are nested calls: no memory, no other thread's end, no calls of a driver."""
    return not event.name().startswith("[") and not event.is_async() and event.linked_correlation_id() == 0


def _tree(events: Iterable[Any], whole: bool) -> list[Node]:
    """Nodes in order of time within a thread, each with its place and the time of what it called. ``whole``: what loops
    of ours call is theirs; on a GPU, kernels belong to the events that started them."""
    threads: dict[int, list[Node]] = defaultdict(list)
    for e in events:
        name, _, flops = e.name().partition("#") if e.name().startswith(_OURS) else (e.name(), "", "")
        threads[e.start_thread_id()].append(Node(e, name, e.start_ns(), e.end_ns(), flops=float(flops or 0)))
    forward: dict[tuple[int, int], Place] = {}
    phases: list[tuple[int, str]] = []
    # The thread of the spans first: a GPU's backward pass runs in another one, and is placed by time
    order = sorted(threads, key=lambda t: -sum(_is_span(n.name) for n in threads[t]))
    for thread in order:
        open_: list[Node] = []
        threads[thread].sort(key=lambda n: (n.start, -n.end))
        for node in threads[thread]:
            while open_ and open_[-1].end <= node.start:
                open_.pop()
            if whole and open_ and open_[-1].name.startswith(_OURS):
                continue
            if open_:
                parent = open_[-1]
                parent.inside += node.end - node.start
                parent.called = True
                node.place = parent.place
            elif phases:
                at = bisect_right(phases, (node.start, "\uffff")) - 1
                node.place = Place(phases[at][1] if at >= 0 else "")
            node.place = _placed(node, node.place, thread, forward)
            if _is_span(node.name) and not node.name.startswith(MODULE):
                phases.append((node.start, node.place.phase))
            open_.append(node)
    return [node for thread in order for node in threads[thread]]


def _is_span(name: str) -> bool:
    """Phases and modules; loops of ours, whose names begin alike, are operations."""
    return name.startswith(SPAN) and not name.startswith(_OURS)


def _placed(node: Node, place: Place, thread: int, forward: dict[tuple[int, int], Place]) -> Place:
    """The place of a node's own time and of what it calls, by that of what called it."""
    name, event = node.name, node.event
    if name.startswith(MODULE):
        return replace(place, module=name[len(MODULE) :])
    if _is_span(name):
        phase = name[len(SPAN) :]
        return replace(place, phase=phase, head=place.head or phase == "head")
    sequence = event.sequence_nr()
    if name.startswith(_NODE):
        origin = forward.get((event.fwd_thread_id(), sequence))
        if origin is None:
            return replace(place, accumulates=name.endswith("AccumulateGrad"))
        return replace(place, module=origin.module, head=origin.head)
    if sequence >= 0 and event.fwd_thread_id() == 0:
        forward[(thread, sequence)] = place  # the last with a number is the one that autograd gave it to
    return place


def _amount(node: Node, seconds: float) -> Amount:
    flops, moved = _flops(node), 0.0 if node.called else _bytes(node)
    return Amount(seconds, 1, flops, moved, seconds if flops or moved else 0.0)


def _flops(node: Node) -> float:
    """Of matrix products, from the shapes of what they multiply."""
    if node.name in _MATRICES:
        a, b = (node.event.shapes()[i] for i in _MATRICES[node.name])
        return 2.0 * math.prod(a) * b[-1]
    if node.name == "mkldnn::_linear_pointwise":
        x, weight = node.event.shapes()[:2]
        return 2.0 * math.prod(x) * weight[0]
    return node.flops


def _bytes(node: Node) -> float:
    """About what an elementwise operation reads and writes: its inputs, and an output as large as the largest of them
    (in place: the first). Nothing for products and for what only makes a view or reserves memory."""
    kinds = zip(node.event.shapes(), node.event.dtypes(), strict=False)
    inputs = [math.prod(shape) * _SIZES[kind] for shape, kind in kinds if shape and kind in _SIZES]
    if not inputs or node.name in _MATRICES or "attention" in node.name or _is_view(node.name):
        return 0.0
    if node.name == "aten::copy_":
        return float(sum(inputs))
    if node.name in _REDUCTIONS:
        return float(sum(inputs))
    return float(sum(inputs) + (inputs[0] if node.name.endswith("_") else max(inputs)))


_VIEWS = {
    "aten::view", "aten::_unsafe_view", "aten::reshape", "aten::transpose", "aten::t", "aten::permute", "aten::expand",
    "aten::slice", "aten::select", "aten::narrow", "aten::unsqueeze", "aten::squeeze", "aten::split", "aten::chunk",
    "aten::split_with_sizes", "aten::detach", "aten::alias", "aten::as_strided", "aten::unbind", "aten::empty",
    "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::resize_", "aten::result_type", "aten::item",
    "aten::_reshape_alias", "aten::lift_fresh", "aten::set_", "aten::numpy_T", "aten::is_nonzero",
}  # fmt: skip


def _is_view(name: str) -> bool:
    return name in _VIEWS


def _kernel_seconds(events: Iterable[Any]) -> dict[int, float]:
    """Seconds of a GPU's kernels by the number of the operation that started them."""
    seconds: dict[int, float] = defaultdict(float)
    for e in events:
        if e.device_type() == DeviceType.CUDA and e.linked_correlation_id() and not e.is_user_annotation():
            seconds[e.linked_correlation_id()] += e.duration_ns() / 1e9
    return seconds


def _peaks(events: Iterable[Any], nodes: Iterable[Node], cuda: bool) -> dict[str, tuple[int, int]]:
    """The highest sum of what was allocated and freed since the beginning, in each phase."""
    begins = sorted(
        (n.start, n.end, n.place.phase) for n in nodes if _is_span(n.name) and not n.name.startswith(MODULE)
    )
    device = DeviceType.CUDA if cuda else DeviceType.CPU
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]" and e.device_type() == device)
    peaks: dict[str, tuple[int, int]] = {}
    held, at = 0, 0
    open_: list[tuple[int, int, str]] = []  # (end, number, phase)
    for when, change in changes:
        while at < len(begins) and begins[at][0] <= when:
            while open_ and open_[-1][0] <= begins[at][0]:
                open_.pop()
            open_.append((begins[at][1], at, begins[at][2]))
            at += 1
        while open_ and open_[-1][0] <= when:
            open_.pop()
        held += change
        if open_ and held > peaks.get(open_[-1][2], (0, 0))[0]:
            peaks[open_[-1][2]] = (held, open_[-1][1])
    return peaks
