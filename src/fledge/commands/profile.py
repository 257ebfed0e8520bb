"""``fledge profile``: where the time and the memory of a training step go."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fledge.commands.dry_run import count
from fledge.commands.stage import read_config
from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.core.machine import ranks, set_switches
from fledge.recipe import stage_module
from fledge.table import TRAINING

if TYPE_CHECKING:
    from fledge.train.parts import Part
    from fledge.train.profile import Operation, Profile

BAR = 20  # characters of a whole step
WIDE = 120  # columns from which on the parts are explained
MEANING = {
    "source": "batches; grpo: sampling, scoring",
    "projections": "q, k, v, o, gate, up, down",
    "attention": "between q, k, v and o",
    "head and loss": "vocabulary, objective",
    "elementwise": "embedding, norms, gates, sums",
    "casts and copies": "compute copy, gradients' sums",
    "optimizer": "clipping, update",
    "Python and dispatch": "in forward and backward",
    "loop": "packing, metrics",
}


def profile(
    stage: str, config: str | None, overrides: list[str], steps: int, warm_up: int, top: int, out: Path | None,
    trace: Path | None,
) -> None:  # fmt: skip
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # before torch is imported, or its profiler writes a log
    stage_module(stage)  # an unknown stage is told with the nearest name
    if stage not in TRAINING:
        raise ConfigError(f"fledge profile {stage}: is no training stage; {', '.join(TRAINING)} are")
    if ranks() > 1:
        raise ConfigError(f"fledge profile: runs as one process, not as {ranks()} ranks")
    for name, path in (("--out", out), ("--trace", trace)):
        if path is not None and not path.expanduser().parent.is_dir():
            raise ConfigError(f"{name} {path}: there is no folder {path.expanduser().parent}")
    built = read_config(stage, config, overrides)
    switches = set_switches()
    found, before = _measure(stage, built, steps, warm_up, trace)
    console = Console(highlight=False)
    _print(console, stage, built, found, before, top)
    if out is not None:
        _write(out.expanduser(), stage, built, switches, found, before)
        _say(f"written: {out}")
    if trace is not None:
        _say(f"written: {trace} (open it in chrome://tracing or https://ui.perfetto.dev)")


def _measure(stage: str, config: Config, steps: int, warm_up: int, trace: Path | None) -> tuple[Profile, float]:
    """-> the profile, and the seconds that came before the first step: data, model, for DPO the reference."""
    from fledge.core.artefact import Work
    from fledge.core.machine import machine
    from fledge.train.mesh import Mesh
    from fledge.train.profile import take_profile, watched
    from fledge.train.watch import Watch, watched_trainee

    mesh = Mesh(device=machine().device)
    watch = Watch(mesh.device)
    with tempfile.TemporaryDirectory(prefix="fledge-profile-") as name:
        folder = Path(name)
        started = time.perf_counter()
        training = stage_module(stage).prepare(config, Work(folder / stage, folder, done=False), mesh)
        loop = training.loop(config, folder, stage, mesh, watched_trainee(watch))
        before = time.perf_counter() - started
        place = trace.expanduser() if trace is not None else None
        cycle = int(getattr(config, "updates", 1))  # only the first update of a rollout waits for its sampling
        found = take_profile(watched(loop, watch), watch, warm_up, steps, cycle, place, _say)
    return found, before


def _print(console: Console, stage: str, config: Config, found: Profile, before: float, top: int) -> None:
    import torch

    where = f"{found.device}, {torch.get_num_threads()} threads"
    console.print(
        Text.assemble((f"{stage}", "bold"), f"  {count(found.parameters)} parameters, {found.dtype}, on {where}")
    )
    console.print(_summary(found, before))
    if found.disturbed:
        words = "The steps were slower than the same ones under the profiler: something else runs on this machine."
        console.print(Text(f"{words} The shares may hold, the times do not.\n", style="yellow"))
    _print_time(console, found)
    _print_memory(console, found)
    if top:
        _print_operations(console, found, found.operations[:top])


def _summary(found: Profile, before: float) -> Text:
    low, high = min(found.steps), max(found.steps)
    share = found.gflops / found.product_ceiling
    waited = found.part("source").seconds / found.seconds
    lines = [
        f"a step     {_ms(found.seconds)} ms, the median of {len(found.steps)} from {_ms(low)} to {_ms(high)}; "
        f"{_ms(max(0.0, found.first_time))} ms more when its batch was new; {before:.1f} s before the first",
        f"tokens     {found.tokens:,.0f} a step in {found.micro_batches:g} micro-batches, {found.trained:,.0f} of them "
        f"trained on: {found.tokens / found.seconds:,.0f} a second",
        f"products   {found.gflop:,.1f} GFLOP that the step needs: {_rounded(found.gflops)} GFLOP/s, {share:.0%} of "
        f"the {found.product_ceiling:,.0f} of a large product here",
        f"source     {waited:.1%} of the step",
    ]
    if found.sampled:
        rate = found.sampled / found.part("source").seconds
        lines[-1] += f", {found.sampled:,.0f} tokens sampled: {rate:,.0f} a second"
        inside = sorted(found.sampling.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {_ms(seconds)}" for name, seconds in inside)
        lines.append(f"           its operations, in ms under the profiler: {shown}")
    if found.cycle > 1:
        lines[0] += f"; each the mean of {found.cycle} updates of one rollout"
    return Text("\n".join(lines) + "\n")


def _print_time(console: Console, found: Profile) -> None:
    table = _table("where the time goes", "part")
    for heading in ("ms", "share", "", "forward", "backward", "rate", "of ceiling"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    wide = console.width >= WIDE
    if wide:
        table.add_column("", style="dim", no_wrap=True)
    for part in found.parts:
        share = part.seconds / found.seconds
        rate, ceiling = _rate(part, found)
        split = [_ms(x) if x else "" for x in (part.forward, part.backward)]
        bar = Text("█" * round(BAR * share), style="cyan")
        meaning = [MEANING[part.name]] if wide else []
        table.add_row(part.name, _ms(part.seconds), f"{share:.1%}", bar, *split, rate, ceiling, *meaning)
    table.add_section()
    useful = found.gflops / found.product_ceiling
    table.add_row("step", _ms(found.seconds), "", "", "", "", f"{_rounded(found.gflops)} GFLOP/s", f"{useful:.0%}")
    console.print(table)
    _note(
        console,
        f"Ceilings measured now: {found.product_ceiling:,.0f} GFLOP/s of a {found.dtype} product, "
        f"{found.copy_ceiling:,.0f} GB/s of a copy in memory. Bytes are about what operations read and write; "
        "what stays in caches can be faster than memory.",
    )


def _print_memory(console: Console, found: Profile) -> None:
    table = _table("where the memory goes", "tensors of")
    for heading in ("MiB", "of peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    peak = found.memory["peak of tensors"]
    for name, value in found.memory.items():
        if name == "peak of tensors":
            table.add_section()
        share = f"{value / peak:.0%}" if peak and not name.startswith("process") else ""
        table.add_row(name, f"{value / 2**20:,.1f}", share)
    console.print(table)
    _note(
        console,
        f"The peak of a step is in its phase {found.peak_phase or 'unknown'}; gradients as they were when that began. "
        "The process holds Python, torch, data and references too.",
    )


def _print_operations(console: Console, found: Profile, operations: list[Operation]) -> None:
    table = _table("the most expensive operations", "operation")
    for heading in ("part", "calls", "ms", "share", "rate", "of ceiling"):
        table.add_column(heading, justify="left" if heading == "part" else "right", no_wrap=True)
    for each in operations:
        rate, ceiling = _rate(each, found)
        share = f"{each.seconds / found.profiled_seconds:.1%}"
        table.add_row(each.name, each.part, f"{each.calls:,.0f}", _ms(each.seconds), share, rate, ceiling)
    slower = found.profiled_seconds / found.seconds
    console.print(table)
    _note(console, f"A step under the profiler: {_ms(found.profiled_seconds)} ms, {slower:.2f} of one without.")


def _note(console: Console, text: str) -> None:
    console.print(Text(f"{text}\n", style="dim"))


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    return table


def _rate(of: Part | Operation, found: Profile) -> tuple[str, str]:
    """The rate and its share of the ceiling, as texts; empty where what was computed or moved is not known."""
    if of.gflops:
        return f"{_rounded(of.gflops)} GFLOP/s", f"{of.gflops / found.product_ceiling:.0%}"
    if of.gbytes:
        return f"{_rounded(of.gbytes)} GB/s", f"{of.gbytes / found.copy_ceiling:.0%}"
    return "", ""


def _ms(seconds: float) -> str:
    return _rounded(1000 * seconds)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _write(path: Path, stage: str, config: Config, switches: dict[str, Any], found: Profile, before: float) -> None:
    from fledge.core.artefact import hardware, versions, write_json

    head = {"stage": stage, "config": config.plain(), "hardware": hardware(), "versions": versions()}
    write_json(path, {**head, "switches": switches, "seconds_before": before, **found.plain()})


def _say(line: str) -> None:
    typer.echo(line, err=True)
