"""What this machine can do, and the switches that commands set (never set at import).

Findings behind the switches, measured on 2-core x86 machines without a GPU: glibc gives large freed tensors back to
the kernel and each step faults them in again, so reusing freed memory is 1.2-2x; bf16 products pay only where the
processor has instructions for them.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Machine:
    """``dtype`` is what training would use; ``bf16`` says why ("amx", "avx512_bf16", "cuda", "")."""

    cores: int
    memory_gib: float
    cpu: str
    cuda: str
    bf16: str
    device: str
    dtype: str

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def ranks() -> int:
    """Processes that torchrun has started for this work; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


@cache
def bf16_instructions() -> str:
    """The processor's best instructions for bf16 products: "amx", "avx512_bf16" or ""."""
    flags = cpu_flags()
    return "amx" if "amx_bf16" in flags else "avx512_bf16" if "avx512_bf16" in flags else ""


def machine() -> Machine:
    import torch

    from fledge.core.artefact import hardware

    facts = hardware()
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    if cuda:
        bf16 = "cuda" if torch.cuda.is_bf16_supported() else ""
    else:
        bf16 = bf16_instructions()
    return Machine(
        cores=cores(),
        memory_gib=float(facts["memory_gib"]),
        cpu=str(facts["cpu"]),
        cuda=cuda,
        bf16=bf16,
        device="cuda" if cuda else "cpu",
        dtype="bfloat16" if bf16 else "float32",
    )


def compute_dtype(name: str) -> torch.dtype:
    """``auto`` is bf16 where the machine has instructions for it, else float32."""
    import torch

    dtype: torch.dtype = getattr(torch, machine().dtype if name == "auto" else name)
    return dtype


def set_switches() -> dict[str, Any]:
    """Called by commands before work: threads to the cores, freed memory kept. Returns what was set.

    ``FLEDGE_KEEP_ALLOCATOR=1`` leaves the allocator as it is; ``OMP_NUM_THREADS`` decides the threads if given.
    """
    import torch

    threads = int(os.environ.get("OMP_NUM_THREADS") or cores())
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    # Compiled products that oneDNN keeps, read at its first one: its default of 1,024 is too few for training and
    # generating side by side (core/shapes.py).
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    kept = os.environ.get("FLEDGE_KEEP_ALLOCATOR") != "1" and reuse_freed_memory()
    return {"threads": threads, "reuse_freed_memory": kept, "matmul_precision": torch.get_float32_matmul_precision()}


def reuse_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel. False where there is no glibc.

    Paired measurement on a 2-core AVX-512 machine: 1.16x on a 6.5M-parameter training step, 2.1x at a vocabulary of
    152k. Price: the peak of memory stays reserved.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    return all(
        mallopt(option, value) == 1
        for option, value in ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_top_pad, 64 << 20))
    )


def product_rate(dtype: str, size: int = 1024, seconds: float = 0.3) -> float:
    """Rate of a square matrix product in GFLOP/s, as a ceiling to compare with."""
    import torch

    kind = getattr(torch, dtype)
    a, b = (torch.randn(size, size).to(kind) for _ in range(2))
    torch.mm(a, b)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        torch.mm(a, b)
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - started) / 1e9
