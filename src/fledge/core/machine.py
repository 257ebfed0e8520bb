"""What this machine can do, and the switches that commands set (never set at import).

Findings behind the switches, measured on 2-core x86 machines without a GPU: glibc gives large freed tensors back to
the kernel and each step faults them in again, so reusing freed memory is 1.2-2x; bf16 products pay only where the
processor has instructions for them; on AMD with AVX-512, oneDNN's float32 products are 1.6-2x MKL's and as exact.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Callable
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
    return set(_cpuinfo("flags", "Features").split())


def cpu_vendor() -> str:
    """``AuthenticAMD``, ``GenuineIntel``, ...; empty where the system does not say."""
    return _cpuinfo("vendor_id").strip()


def cxx_compiler() -> str:
    """The command of the C++ compiler: CXX, else g++ (clang++ on macOS), as torch chooses; empty without one."""
    command = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    return command if shutil.which(command.split()[0]) else ""


def _cpuinfo(*keys: str) -> str:
    """The first entry of /proc/cpuinfo whose key begins with one of these; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in text.splitlines() if line.startswith(keys)), "")


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


@dataclass(frozen=True)
class Switch:
    """Something of the whole process that commands set before work, and no import does. ``set`` returns what is in
    force then; ``off`` is how to leave it as it is."""

    name: str
    set: Callable[[], Any]
    what: str
    why: str
    off: str


def set_switches() -> dict[str, Any]:
    """What commands call before work, and library users may: sets every one of `SWITCHES` that its variable does not
    turn off. -> what is in force, by name."""
    return {switch.name: switch.set() for switch in SWITCHES}


def _threads() -> int:
    import torch

    threads = int(os.environ.get("OMP_NUM_THREADS") or cores())
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return threads


def _product_cache() -> int:
    return int(os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096"))


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


def fast_float32_products() -> str:
    """Have oneDNN compute float32 products where that is as exact as MKL and faster. -> the precision in force.

    torch hands them to oneDNN under "medium", which allows it to round to bf16. It does where it has instructions that
    gain by it (AMX), so there the precision stays. Decided by the kind of processor, not by timing: a rate measured on
    a busy machine would change the last bits from run to run. Whether the products are exact is measured, each time.
    """
    import torch

    if os.environ.get("FLEDGE_KEEP_PRECISION") != "1" and _gains_from_onednn() and not torch.cuda.is_available():
        before = torch.get_float32_matmul_precision()
        if before == "highest":
            torch.set_float32_matmul_precision("medium")
            if product_error() > EXACT:
                torch.set_float32_matmul_precision(before)
    return torch.get_float32_matmul_precision()


def _gains_from_onednn() -> bool:
    """AMD with AVX-512, where MKL takes a generic path: 239-388 GFLOP/s against 141-190 on 2 cores of a Zen 5, and a
    float32 training step 1.63x (medians of paired runs). Not measured elsewhere, so nowhere else."""
    flags = cpu_flags()
    return cpu_vendor() == "AuthenticAMD" and "avx512f" in flags and "amx_bf16" not in flags


EXACT = 1e-5  # relative error: float32 products have 3e-7, TF32 3e-4, bf16 3e-3


def product_error() -> float:
    """Relative error of float32 products as they are computed now, against float64: the worst of a matrix product, a
    linear layer and a batched product, of sizes that every path of the library takes as large."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 256, 256, generator=generator) for _ in range(2))
    cases = [(torch.bmm(a, b), torch.bmm(a.double(), b.double()))]
    for x, y in ((a[0], b[0]), (a.flatten(0, 1), b[1])):
        cases += [(torch.mm(x, y), torch.mm(x.double(), y.double()))]
        cases += [(F.linear(x, y, y[0]), F.linear(x.double(), y.double(), y[0].double()))]
    return max(float((found - true).norm() / true.norm()) for found, true in cases)


SWITCHES = (
    Switch(
        "threads", _threads, "torch computes with a thread for each core of this process",
        "launchers leave torch with one thread, or with one for each core of a machine of which only a share is given",
        "OMP_NUM_THREADS=N decides how many",
    ),
    Switch(
        "reuse_freed_memory", lambda: os.environ.get("FLEDGE_KEEP_ALLOCATOR") != "1" and reuse_freed_memory(),
        "freed memory is kept for the next step, not given back to the system (glibc)",
        "1.2x to 2x on CPUs; price: the peak of memory stays reserved",
        "FLEDGE_KEEP_ALLOCATOR=1",
    ),
    Switch(
        # read by oneDNN at its first product; its default is too few for training and generating side by side
        "onednn_cache", _product_cache, "oneDNN keeps the code of 4,096 shapes of products, not of 1,024",
        "bf16 products of a new shape are compiled: 7-32 ms instead of 1 (core/shapes.py)",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY=N decides how many; 1024 is oneDNN's own",
    ),
    Switch(
        "matmul_precision", fast_float32_products,
        'float32 products by oneDNN ("medium"), where it computes them exactly: AMD with AVX-512, no GPU',
        "1.6x a float32 training step there; elsewhere it rounds to bf16 or gains nothing, and is not set",
        "FLEDGE_KEEP_PRECISION=1",
    ),
)  # fmt: skip


def product_rate(dtype: str, size: int = 1024, seconds: float = 0.3, device: str = "cpu") -> float:
    """Rate of a square matrix product in GFLOP/s, as a ceiling to compare with."""
    import torch

    kind = getattr(torch, dtype)
    a, b = (torch.randn(size, size).to(device, kind) for _ in range(2))
    return 2 * size**3 / _seconds_each(lambda: torch.mm(a, b), seconds, device) / 1e9


def copy_rate(megabytes: int = 256, seconds: float = 0.3, device: str = "cpu") -> float:
    """Memory's rate in GB/s, read and write together, of copying a tensor too large for the caches."""
    import torch

    source = torch.zeros(megabytes << 20, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * len(source) / _seconds_each(lambda: target.copy_(source), seconds, device) / 1e9


def _seconds_each(work: Callable[[], object], seconds: float, device: str) -> float:
    """Of one of as many calls as fit into ``seconds``, after one that does not count."""
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    work()
    wait()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        wait()
        count += 1
    return (time.perf_counter() - started) / count
