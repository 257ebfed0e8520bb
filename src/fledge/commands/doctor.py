"""``fledge doctor``: what the machine can do, what would be used, and what commands switch."""

from __future__ import annotations

import importlib.util
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fledge.core.machine import SWITCHES, Machine, copy_rate, machine, product_rate, set_switches

OPTIONAL = {
    "tensorboard": "metrics for TensorBoard",
    "transformers": "parity tests",
    "trl": "parity tests of losses",
    "peft": "parity tests of adapters",
    "datasets": "parity tests",
    "pytest": "make test",
}


def doctor() -> None:
    switches = set_switches()
    facts = machine()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    found = [*_machine_rows(), *_rates(facts.device), *_loop_rows(facts), *_cache_rows(facts)]
    for name, value in [*found, *_disk_rows(), *_sandbox_rows()]:
        table.add_row(name, value)
    table.add_row("fledge", _version("fledge"))
    table.add_row("torch", _version("torch"))
    for name, use in OPTIONAL.items():
        table.add_row(name, (_version(name) if importlib.util.find_spec(name) else "not installed") + f"  ({use})")
    console = Console(highlight=False)
    console.print(table)
    _print_switches(console, switches)


def _print_switches(console: Console, switches: dict[str, Any]) -> None:
    """Each switch with what is in force now, why, and how to do without."""
    shown = Table(title="\nswitches of this process", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("switch", "in force", "what commands set, and why", "to turn it off, or set it otherwise"):
        shown.add_column(heading, overflow="fold")
    for switch in SWITCHES:
        value = switches[switch.name]
        text = "yes" if value is True else "no" if value is False else str(value)
        shown.add_row(
            Text(switch.name, style="bold"), Text(text), Text(f"{switch.what}: {switch.why}"), Text(switch.off)
        )
    console.print(shown)
    console.print(
        Text(
            "Set by the commands that compute (run, chat, evaluate, profile, doctor, and the training stages) before "
            "their work; `import fledge` sets none of them. From Python: fledge.core.machine.set_switches(), which "
            "heeds the same variables. See docs/switches.md."
        )
    )


def _machine_rows() -> list[tuple[str, str]]:
    import psutil

    facts = machine()
    gib = psutil.virtual_memory().available / 2**30
    if facts.cuda:
        why = f"bfloat16 products on {facts.cuda}" if facts.bf16 else f"{facts.cuda} has no bf16"
    else:
        why = (
            f"this processor has {facts.bf16} instructions" if facts.bf16 else "no bf16 instructions: float32 is faster"
        )
    return [
        ("processor", f"{facts.cpu}, {facts.cores} cores for this process"),
        ("memory", f"{facts.memory_gib} GiB, {gib:.1f} GiB free"),
        ("gpu", facts.cuda or "none: the processor would be used"),
        ("device", f"{facts.device} would be used"),
        ("training type", f"{facts.dtype} would be used ({why})"),
    ]


def _rates(device: str) -> list[tuple[str, str]]:
    """Measured here, now. On the processor only: a GPU's rate needs a GPU's measurement."""
    where = " on the processor" if device != "cpu" else ""
    rates = [
        (f"{dtype} product", f"{product_rate(dtype):,.0f} GFLOP/s measured{where}, 1024 x 1024")
        for dtype in ("float32", "bfloat16")
    ]
    return [*rates, ("memory copy", f"{copy_rate():,.0f} GB/s measured{where}, read and write together")]


def _loop_rows(facts: Machine) -> list[tuple[str, str]]:
    """What ``compile`` would compile here; what has to be built for it is built now, once a machine."""
    import torch

    from fledge.generate import native
    from fledge.model import head_loops, pass_loops, passes, tiles

    dtype = getattr(torch, facts.dtype)
    built = native.library() if facts.device == "cpu" else "the compiled step is for CPUs"
    why = {
        "passes": passes.missing(), "attention": tiles.missing(dtype), "head": head_loops.missing(dtype),
        "decoding": built if isinstance(built, str) else "",
    }  # fmt: skip
    made = "passes (by torch's compiler)" if pass_loops.missing() else "passes"
    good = [made if name == "passes" else name for name, reason in why.items() if not reason]
    rest = [f"{name} not: {reason}" for name, reason in why.items() if reason]
    return [("compiled loops", "; ".join([*([", ".join(good)] if good else []), *rest]) + f"  ({facts.dtype})")]


def _cache_rows(facts: Machine) -> list[tuple[str, str]]:
    """How the engine would keep keys and values, asked of the device for the shape of Qwen2-0.5B."""
    import torch

    from fledge.generate.page_reading import IN_PLACE, best_reader
    from fledge.generate.pages import PAGE

    reader = best_reader(facts.device, getattr(torch, facts.dtype), 14, 2, 64, PAGE)
    if reader in IN_PLACE:
        return [("engine's cache", f"pages of {PAGE} tokens, which varlen_attn reads through a table")]
    how = "gathered for plain products" if reader == "gathered" else "copied side by side for varlen_attn"
    return [("engine's cache", f"a block for each cohort; pages (paged=True) would be {how}")]


def _disk_rows() -> list[tuple[str, str]]:
    usage = shutil.disk_usage(Path.cwd())
    return [("disk here", f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f} GiB")]


def _sandbox_rows() -> list[tuple[str, str]]:
    from fledge.core.errors import FledgeError
    from fledge.reward import sandbox

    try:
        return [("sandbox", _protection(sandbox.protection()))]
    except FledgeError as error:
        return [("sandbox", f"none: code of models would not be run ({error})")]


def _protection(found: Any) -> str:
    return f"{found.kind} ({found.detail})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "from source, not installed"
