"""Wrappers that a loop runs with to be watched: who takes the time of a step, without a line in the loop or the model.

`fledge profile` hands them to the loop in place of what they wrap. Wall time goes to the innermost open phase, so the
phases of a step add up to it; each phase is also a span in the trace of a profiler, where one runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.train.batch import Example, PackedBatch
from fledge.train.loop import GlobalBatch, Source
from fledge.train.merging import Merging
from fledge.train.objective import Objective, Outputs, Terms
from fledge.train.trainee import Trainee

SPAN = "fledge:"  # what the names of spans begin with
MODULE = f"{SPAN}module:"
PHASES = ("step", "source", "forward", "head", "backward", "gradients", "optimizer", "casts")  # "step": all the rest


@dataclass
class Load:
    """What a step had to work on, summed over its micro-batches and its modules in training."""

    tokens: int = 0  # through the body of the decoder
    trained: int = 0  # through the head
    pairs: int = 0  # of a query and a key that it sees
    sampled: int = 0  # made by the engine
    micro_batches: int = 0

    def add(self, batch: PackedBatch) -> None:
        length, prefix = batch.layout.length, batch.layout.prefix
        self.tokens += batch.layout.tokens
        self.trained += len(batch.trained)
        self.pairs += int((length * prefix + length * (length + 1) // 2).sum())
        self.micro_batches += 1

    def flops(self, shape: DecoderConfig) -> float:
        """Operations that forward and backward cannot do without: `DecoderConfig.training_flops` for what is there,
        token by token and pair by pair. Sampling and passes of a reference are not in it."""
        queries = shape.num_attention_heads * shape.head_dim
        head = shape.vocab_size * shape.hidden_size
        attention = 12.0 * shape.num_hidden_layers * queries * self.pairs
        return 6.0 * shape.body_parameters * self.tokens + 6.0 * head * self.trained + attention


@dataclass
class Watch:
    """The clock of one step at a time. ``gradients``: bytes of gradients when each phase of all the steps began that
    were taken with ``mark`` set (it takes time, so the steps that are timed go without)."""

    device: str = "cpu"
    seconds: dict[str, float] = field(default_factory=dict)
    load: Load = field(default_factory=Load)
    mark: bool = False
    gradients: list[int] = field(default_factory=list)
    gradient_bytes: Callable[[], int] = lambda: 0
    _open: list[tuple[str, record_function]] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step begins: everything from zero."""
        self.seconds, self.load = dict.fromkeys(PHASES, 0.0), Load()
        with self.phase("step"):
            yield

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        if name == "step":
            self._wait()
        if self.mark:
            self.gradients.append(self.gradient_bytes())
        self._settle()
        span = record_function(SPAN + name)
        span.__enter__()
        self._open.append((name, span))

    def end(self) -> None:
        name, span = self._open[-1]
        if name in ("step", "source"):  # a GPU is waited for here alone: elsewhere waiting would change the time
            self._wait()
        span.__exit__(None, None, None)
        self._settle()
        self._open.pop()

    def end_if(self, name: str) -> None:
        if self._open and self._open[-1][0] == name:
            self.end()

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1][0]] += now - self._since
        self._since = now

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


class WatchedTrainee(Trainee):
    """Backward has no function of its own: it is what lies between ``loss`` and ``collect``."""

    def __init__(self, watch: Watch, *args: Any, **kwargs: Any) -> None:
        self.watch = watch
        super().__init__(*args, **kwargs)
        others = watch.gradient_bytes
        watch.gradient_bytes = lambda: others() + self.gradient_bytes()

    def loss(self, batch: PackedBatch, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
        self.watch.load.add(batch)
        with self.watch.phase("forward"):
            result = super().loss(batch, *args, **kwargs)
        self.watch.begin("backward")
        return result

    def collect(self) -> None:
        self.watch.end_if("backward")
        with self.watch.phase("gradients"):
            super().collect()

    def step(self, step: int, steps: int) -> dict[str, float]:
        with self.watch.phase("optimizer"):
            return super().step(step, steps)

    def refresh(self) -> None:
        if not self.watch.seconds:  # while it is made, before the first step
            return super().refresh()
        with self.watch.phase("casts"):
            super().refresh()

    def gradient_bytes(self) -> int:
        """Of what comes and goes; where there is a compute copy, the parameters' own gradients stay (`memory`)."""
        return sum(tensor_bytes(p.grad) for p in self.compute.parameters() if p.grad is not None)

    def memory(self) -> dict[str, int]:
        """Bytes of what stays from step to step."""
        states = [value for o in self.optimizers for entry in o.state.values() for value in entry.values()]
        return {
            "weights": sum(tensor_bytes(p) for p in self.decoder.parameters()),
            "compute copy": 0 if self.copy is None else sum(tensor_bytes(p) for p in self.copy.parameters()),
            "float32 gradients": sum(tensor_bytes(room) for room in self._room.values()),
            "optimizer state": sum(tensor_bytes(value) for value in states if isinstance(value, Tensor)),
            "task vectors": sum(o.bytes for o in self.optimizers if isinstance(o, Merging)),
        }


class WatchedSource:
    """``replay``: batches to hand out instead of the source's own, in their order; the source still works for each
    unless it is told to ``rest``."""

    def __init__(self, watch: Watch, source: Source) -> None:
        self.watch, self.source = watch, source
        self.replay: list[GlobalBatch] = []
        self.rest = False
        self.last: GlobalBatch | None = None

    def next(self, step: int, models: Mapping[str, Trainee]) -> GlobalBatch:
        if not self.rest:
            with self.watch.phase("source"):
                batch = self.source.next(step, models)
        if self.replay:
            batch = self.replay.pop(0)
        self.last = batch
        self.watch.load.sampled += sum(int(s.values.get("sampled", 0)) for e in batch.examples for s in e.segments)
        return batch

    def state(self) -> dict[str, Any]:
        return self.source.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.source.load_state(state)


class WatchedObjective:
    def __init__(self, watch: Watch, objective: Objective) -> None:
        self.watch, self.objective = watch, objective

    def denominators(self, examples: Sequence[Example]) -> dict[str, float]:
        return self.objective.denominators(examples)

    def terms(self, batch: PackedBatch, outputs: Outputs, module: str) -> Terms:
        with self.watch.phase("head"):
            return self.objective.terms(batch, outputs, module)


def watched_trainee(watch: Watch) -> Callable[..., Trainee]:
    """What makes the trainees of a loop that is watched."""
    return partial(WatchedTrainee, watch)


@contextmanager
def module_spans(decoder: Decoder) -> Iterator[None]:
    """While this is open, each call of a module of the decoder is a span that bears the name of its class."""
    opened: list[record_function] = []

    def enter(module: nn.Module, args: Any) -> None:
        opened.append(record_function(MODULE + type(module).__name__))
        opened[-1].__enter__()

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        opened.pop().__exit__(None, None, None)

    handles = []
    for module in decoder.modules():
        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
