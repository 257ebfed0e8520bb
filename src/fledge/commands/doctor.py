"""``fledge doctor``: what the machine can do, and what would be used."""

from __future__ import annotations

import importlib.util
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fledge.core.machine import machine, product_rate, set_switches

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
    for name, value in [*_machine_rows(switches), *_rates(facts.device), *_disk_rows(), *_sandbox_rows()]:
        table.add_row(name, value)
    table.add_row("fledge", _version("fledge"))
    table.add_row("torch", _version("torch"))
    for name, use in OPTIONAL.items():
        table.add_row(name, (_version(name) if importlib.util.find_spec(name) else "not installed") + f"  ({use})")
    Console(highlight=False).print(table)


def _machine_rows(switches: dict[str, object]) -> list[tuple[str, str]]:
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
        ("threads", f"{switches['threads']} would be used"),
        ("memory", f"{facts.memory_gib} GiB, {gib:.1f} GiB free"),
        ("gpu", facts.cuda or "none: the processor would be used"),
        ("device", f"{facts.device} would be used"),
        ("training type", f"{facts.dtype} would be used ({why})"),
        ("freed memory", "kept for reuse" if switches["reuse_freed_memory"] else "given back to the system"),
    ]  # fmt: skip


def _rates(device: str) -> list[tuple[str, str]]:
    """Measured here, now. On the processor only: a GPU's rate needs a GPU's measurement."""
    where = " on the processor" if device != "cpu" else ""
    return [
        (f"{dtype} product", f"{product_rate(dtype):,.0f} GFLOP/s measured{where}, 1024 x 1024")
        for dtype in ("float32", "bfloat16")
    ]


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
